//! How a PostgreSQL store is opened: its address.

use std::{fmt, fs, str::FromStr as _};

use duet_bus::pem;
use sqlx::{
    ConnectOptions as _, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use zeroize::Zeroizing;

use super::{deadline::within, place::make_durable};
use crate::store::{StoreError, columns::unavailable};

/// The server's own deadlines, in milliseconds: for a statement, for a wait within it, for a
/// transaction that its client abandoned.
const DEADLINES: [(&str, &str); 4] = [
    ("statement_timeout", "10000"),
    ("lock_timeout", "5000"),
    ("idle_in_transaction_session_timeout", "15000"),
    ("search_path", "public"),
];

/// How a PostgreSQL store is opened.
#[derive(Clone)]
pub struct PostgresOptions {
    url: String,
    pub(super) connect: PgConnectOptions,
    pub(super) lossless_failover: bool,
    /// Whether opening the store adds to its schema what this build needs.
    pub(super) expands: bool,
}

/// Without the password.
impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The address, which holds no password.
impl fmt::Display for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// Why an address is not that of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It does not parse.
    #[error("not an address of the form postgresql://USER@HOST:PORT/DATABASE")]
    Malformed,
    /// It holds a password, which would be seen wherever the address is.
    #[error("the address holds a password; it belongs into a file or the environment")]
    Password,
    /// It names no database.
    #[error("the address names no database")]
    NoDatabase,
    /// A parameter that is not known or not allowed.
    #[error(
        "parameters of the address can be host, port, user, dbname, sslmode, sslrootcert, sslcert and sslkey"
    )]
    Parameter,
}

const PARAMETERS: [&str; 8] =
    ["host", "port", "user", "dbname", "sslmode", "sslrootcert", "sslcert", "sslkey"];

impl PostgresOptions {
    /// The store at a `postgresql://` address, as libpq understands it, without a password. When
    /// nothing says how far the server's certificate is to be trusted (`sslmode`), it is verified
    /// in full, unless the server is on this machine.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn at(url: &str) -> Result<Self, AddressError> {
        let (_, rest) = url.split_once("://").ok_or(AddressError::Malformed)?;
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = before.split('/').next().unwrap_or_default();
        if authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) {
            return Err(AddressError::Password);
        }
        let mut says_mode = false;
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let name = parameter.split('=').next().unwrap_or_default();
            says_mode |= name == "sslmode";
            match name {
                "password" => return Err(AddressError::Password),
                known if PARAMETERS.contains(&known) => {}
                _ => return Err(AddressError::Parameter),
            }
        }
        let mut connect = PgConnectOptions::from_str(url).map_err(|_| AddressError::Malformed)?;
        if connect.get_database().is_none_or(str::is_empty) {
            return Err(AddressError::NoDatabase);
        }
        if !says_mode {
            let here = connect.get_socket().is_some()
                || ["localhost", "127.0.0.1", "::1", "[::1]"].contains(&connect.get_host())
                || connect.get_host().starts_with('/');
            connect = connect.ssl_mode(if here { PgSslMode::Prefer } else { PgSslMode::VerifyFull });
        }
        let connect = with_pem_files(connect, url)
            .application_name("duet")
            .options(DEADLINES)
            // Statements hold identifiers and sealed bytes; neither belongs into a log.
            .disable_statement_logging();
        Ok(Self { url: url.to_owned(), connect, lossless_failover: false, expands: true })
    }

    /// The same with a password.
    #[must_use]
    pub fn with_password(mut self, password: &Zeroizing<String>) -> Self {
        self.connect = self.connect.password(password);
        self
    }

    /// The same for a server whose failovers lose nothing that was committed, because commits wait
    /// for a standby. Without it, a failover counts as a restore.
    #[must_use]
    pub fn with_lossless_failover(mut self, lossless: bool) -> Self {
        self.lossless_failover = lossless;
        self
    }

    /// The same for a store whose schema is not changed when it is opened: a store that lacks what
    /// this build needs is refused.
    #[must_use]
    pub fn without_expansion(mut self, without: bool) -> Self {
        self.expands = !without;
        self
    }

    /// A connection for what may take long: no statement of it has a deadline.
    pub(in crate::store) async fn connect_for_long(&self) -> Result<PgConnection, StoreError> {
        let mut connection = self.connect().await?;
        make_durable(&mut connection).await?;
        sqlx::raw_sql("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
            .execute(&mut connection)
            .await
            .map_err(unavailable("connect to its server"))?;
        Ok(connection)
    }

    pub(super) async fn connect(&self) -> Result<PgConnection, StoreError> {
        within("connect to its server", async {
            // Boxed, as the other large steps of opening a store are: the caller's future need not
            // hold them.
            Box::pin(self.connect.connect()).await.map_err(unavailable("connect to its server"))
        })
        .await
    }
}

/// The options with those files of certificates and keys that have byte order marks, read without
/// them: the driver would pass over what is marked. It reads the others itself when it connects,
/// and says which it cannot read.
fn with_pem_files(options: PgConnectOptions, url: &str) -> PgConnectOptions {
    let Ok(url) = reqwest::Url::parse(url) else { return options };
    url.query_pairs().fold(options, |options, (name, file)| {
        if !name.starts_with("ssl") {
            return options;
        }
        let bytes = Zeroizing::new(fs::read(&*file).unwrap_or_default());
        if !pem::is_marked(&bytes) {
            return options;
        }
        let pem = pem::unmarked(&bytes);
        match &*name {
            "sslrootcert" => options.ssl_root_cert_from_pem(pem.to_vec()),
            "sslcert" => options.ssl_client_cert_from_pem(pem.as_slice()),
            "sslkey" => options.ssl_client_key_from_pem(pem.as_slice()),
            _ => options,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_with_a_byte_order_mark_is_read_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let options = |name: &str, text: &str| {
            let file = folder.path().join(name);
            fs::write(&file, text).unwrap();
            let url = format!("postgresql://duet@db.example/duet?sslrootcert={}", file.display());
            format!("{:?}", PostgresOptions::at(&url).unwrap().connect)
        };
        // The driver says of itself whether it was given a file or what is in it.
        let given = format!("ssl_root_cert: Some(Inline({:?}))", b"-----BEGIN CERTIFICATE-----");
        assert!(options("marked.pem", "\u{feff}-----BEGIN CERTIFICATE-----").contains(&given));
        assert!(options("plain.pem", "-----BEGIN CERTIFICATE-----").contains("ssl_root_cert: Some(File("));
    }
}
