//! The public nkeys that the broker knows of each role, as its environment names them: that of the
//! seed in use, and another one, which is the next or the old seed's while the role's nkey is
//! exchanged, and otherwise one whose seed nobody has. The configuration always needs two, since an
//! unset variable is an error there.

use std::path::PathBuf;

use duet_bus::{NkeySeed, Role, nkey::NoEntropy};

use crate::{
    initialise::{InitError, Made, write_secret},
    layout::{Layout, ReadError, read_secret},
    nodes,
    secret_file::SecretFile,
};

/// Every role's two public nkeys, as variables and their values.
pub(crate) fn all(layout: &Layout) -> Result<Vec<(String, String)>, InitError> {
    let known = match layout.broker_environment() {
        file if file.exists() => layout.read_broker_environment()?,
        _ => Vec::new(),
    };
    let mut pairs = Vec::new();
    for role in Role::ALL {
        let named = known.iter().find(|(name, _)| *name == role.other_nkey_variable());
        let file = layout.read_nkey_file(role)?;
        pairs.extend(of(layout, role, &file, named.map(|(_, value)| value.clone()))?);
    }
    Ok(pairs)
}

/// Has every environment name what the role's file holds. Outside an exchange the other key is a
/// new one.
pub(crate) fn update(
    layout: &Layout,
    role: Role,
    file: &SecretFile,
    made: &mut Made,
) -> Result<(), InitError> {
    write(layout, &of(layout, role, file, None)?, made)
}

/// Has every environment name both keys of every role: those that an earlier version made named
/// one.
pub(crate) fn complete(layout: &Layout, made: &mut Made) -> Result<(), InitError> {
    write(layout, &all(layout)?, made)
}

/// The role's two keys; `spare` is the other one outside an exchange, or one that is drawn now.
fn of(
    layout: &Layout,
    role: Role,
    file: &SecretFile,
    spare: Option<String>,
) -> Result<[(String, String); 2], InitError> {
    let other = match (file.other(), spare) {
        (Some(seed), _) => public(layout, role, seed)?,
        (None, Some(spare)) => spare,
        // The seed is gone with this line.
        (None, None) => NkeySeed::generate()?.public_key().map_err(|_| NoEntropy)?,
    };
    let in_use = public(layout, role, file.in_use())?;
    Ok([(role.nkey_variable(), in_use), (role.other_nkey_variable(), other)])
}

fn public(layout: &Layout, role: Role, seed: &str) -> Result<String, InitError> {
    let seed = seed.parse::<NkeySeed>();
    seed.and_then(|seed| seed.public_key())
        .map_err(|_| ReadError::Malformed { path: layout.nkey(role), expected: "an nkey seed" }.into())
}

/// The broker's environment and its nodes', those there are.
fn environments(layout: &Layout) -> Result<Vec<PathBuf>, InitError> {
    let mut files = vec![layout.broker_environment()];
    files.extend(nodes::names(layout)?.iter().map(|name| layout.node(name).environment()));
    files.retain(|file| file.exists());
    Ok(files)
}

/// Gives variables values in every environment, and leaves all other lines as they are.
fn write(layout: &Layout, pairs: &[(String, String)], made: &mut Made) -> Result<(), InitError> {
    for path in environments(layout)? {
        let before = read_secret(&path)?;
        let mut lines: Vec<String> = before.lines().map(str::to_owned).collect();
        for (name, value) in pairs {
            let line = format!("{name}={value}");
            let is_it = |known: &&mut String| known.split_once('=').is_some_and(|(known, _)| known == name);
            match lines.iter_mut().find(is_it) {
                Some(known) => *known = line,
                None => lines.push(line),
            }
        }
        lines.push(String::new());
        let after = lines.join("\n");
        if after != *before {
            write_secret(&path, after.as_bytes())?;
            made.files.push(path);
        }
    }
    Ok(())
}
