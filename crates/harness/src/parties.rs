//! Parties that were set up once and are copied for each test. Making the safe primes of a party's
//! card takes most of a minute, and repeating it would test nothing new.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    duet::{Duet, text},
    folders::{copy_folder, make_private_folder},
    programs,
};

/// How long the set-up may take: four safe primes on a busy machine.
const SET_UP_DEADLINE: Duration = Duration::from_secs(900);

/// A database for a share store.
#[derive(Clone, Debug)]
pub struct Database {
    /// Its address without the password, in the form of `--store`.
    pub url: String,
    /// Its owner's password.
    pub password: String,
}

/// The folder of one party: its share store, the key that opens it, and facts about the party.
#[derive(Clone, Debug)]
pub struct PartyFolder {
    name: String,
    folder: PathBuf,
    /// The database of the share store, if the store is not in the folder.
    database: Option<Database>,
}

impl PartyFolder {
    /// The folder of the party called `name` below `parent`.
    #[must_use]
    pub fn new(parent: &Path, name: &str) -> Self {
        Self { name: name.to_owned(), folder: parent.join(name), database: None }
    }

    /// The party's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder with all files of this party, and of no other.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// The share store's file.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.folder.join("shares.db")
    }

    /// The file with the key that opens the store.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.folder.join("seal.key")
    }

    /// The `duet` command with this party's store and key.
    #[must_use]
    pub fn command(&self, duet: &Duet) -> Duet {
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        let duet = duet
            .clone()
            .with("DUET_PARTY", &self.name)
            .with("DUET_STORE", &path(self.store()))
            .with("DUET_KEY_FILE", &path(self.key_file()));
        match &self.database {
            Some(database) => {
                duet.with("DUET_STORE", &database.url).with("DUET_STORE_PASSWORD", &database.password)
            }
            None => duet,
        }
    }

    /// The database to which the share store was moved.
    #[must_use]
    pub const fn database(&self) -> Option<&Database> {
        self.database.as_ref()
    }

    /// The party with its share store in `database`, where it lies already.
    #[must_use]
    pub fn in_database(mut self, database: Database) -> Self {
        self.database = Some(database);
        self
    }

    /// Moves the share store into an empty `database`, as an operator would: by a backup.
    ///
    /// # Errors
    /// When a command fails.
    pub async fn move_to(&mut self, duet: &Duet, database: Database) -> Result<()> {
        let file = self.folder.join("moving.backup");
        let file = file.to_string_lossy();
        self.command(duet).json(&["party", "backup", "--out", &file]).await?;
        self.database = Some(database);
        self.command(duet).json(&["party", "restore", "--from", &file]).await?;
        Ok(())
    }

    /// Makes the party's keys, card and store. Returns the card's fingerprint.
    ///
    /// # Errors
    /// When `duet party init` fails.
    pub async fn set_up(&self, duet: &Duet) -> Result<String> {
        make_private_folder(&self.folder)?;
        let duet = self.command(duet).within(SET_UP_DEADLINE);
        Ok(text(&duet.json(&["party", "init"]).await?, "/fingerprint")?.to_owned())
    }

    /// The card's fingerprint, from the store.
    ///
    /// # Errors
    /// When the store has no party.
    pub async fn fingerprint(&self, duet: &Duet) -> Result<String> {
        let card = self.command(duet).json(&["party", "card"]).await?;
        Ok(text(&card, "/fingerprint")?.to_owned())
    }

    /// Writes a token that permits `tenant` to create wallets here. Returns the token's file.
    ///
    /// # Errors
    /// When `duet party token` fails.
    pub async fn token(&self, duet: &Duet, tenant: &str) -> Result<PathBuf> {
        let file = self.folder.join(format!("{tenant}.token"));
        let out = file.to_string_lossy();
        self.command(duet).json(&["party", "token", "--tenant", tenant, "--out", &out]).await?;
        Ok(file)
    }

    /// Copies a kept party with this folder's name. If there is none, sets one up and keeps it.
    /// Returns the card's fingerprint.
    ///
    /// # Errors
    /// When it can be neither copied nor made.
    pub async fn copy_or_set_up(&self, duet: &Duet) -> Result<String> {
        let program = programs::duet()?;
        let parties = program.parent().context("a program lies in a folder")?.join("duet-test-parties-2");
        fs::create_dir_all(&parties)?;
        // Several tests run at once, in several processes.
        let lock = File::create(parties.join(format!("{}.lock", self.name)))?;
        let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
        let origin = Self::new(&parties, &self.name);
        // A party from an older program may be unusable.
        let fingerprint = match origin.fingerprint(duet).await {
            Ok(fingerprint) => fingerprint,
            Err(_) => {
                if origin.folder.exists() {
                    fs::remove_dir_all(&origin.folder)?;
                }
                origin.set_up(duet).await?
            }
        };
        copy_folder(&origin.folder, &self.folder)?;
        drop(lock);
        Ok(fingerprint)
    }
}
