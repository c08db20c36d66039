//! The public nkeys of each role in the broker's environment. Each role has two: the key of the
//! seed in use, and another one. During an exchange the other is the next or the old seed's key.
//! Otherwise it is a key whose seed was never kept. The configuration always needs two, because an
//! unset variable is an error there.

use std::path::PathBuf;

use duet_bus::{NkeySeed, Role, nkey::NoEntropy};

use crate::{
    layout::Layout,
    reader::{ReadError, read_secret},
    secret_file::SecretFile,
    writer::{InitError, Made, write_secret},
};

/// Every role's two public nkeys, as variables with their values.
fn all(layout: &Layout) -> Result<Vec<(String, String)>, InitError> {
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

/// Writes the keys in the role's file to every environment. Outside an exchange the other key is a
/// new one.
pub(crate) fn update(
    layout: &Layout,
    role: Role,
    file: &SecretFile,
    made: &mut Made,
) -> Result<(), InitError> {
    write(layout, &of(layout, role, file, None)?, made)
}

/// Writes both keys of every role to every environment. An earlier version wrote only one.
pub(crate) fn complete(layout: &Layout, made: &mut Made) -> Result<(), InitError> {
    write(layout, &all(layout)?, made)
}

/// The role's two keys. Outside an exchange the other one is `spare`, or a key drawn now.
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

/// The environments that exist: the broker's and its nodes'.
fn environments(layout: &Layout) -> Result<Vec<PathBuf>, InitError> {
    let mut files = vec![layout.broker_environment()];
    files.extend(layout.node_names()?.iter().map(|name| layout.node(name).environment()));
    files.retain(|file| file.exists());
    Ok(files)
}

/// Sets variables in every environment and leaves all other lines as they are.
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

/// Every role's public nkeys, as lines of an environment.
pub(crate) fn public_nkeys(layout: &Layout) -> Result<Vec<String>, InitError> {
    Ok(all(layout)?.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}
