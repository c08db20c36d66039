//! One module per group of commands.

pub(crate) mod exit_codes;
pub(crate) mod init;
pub(crate) mod party;
pub(crate) mod requester;
pub(crate) mod verify;
