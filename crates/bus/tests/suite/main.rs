//! The bus on the real broker: delivery, and the permissions of every role.

mod clock;
mod delivery;
mod markers;
mod permissions;
