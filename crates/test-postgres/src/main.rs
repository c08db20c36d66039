//! Starts one server for a whole run of tests, prints its folder, and ends it when its standard
//! input is closed. The caller passes the folder on in the variable `DUET_TEST_POSTGRES`.
#![expect(clippy::print_stdout, reason = "its output is the server's folder")]

use std::io::Read as _;

use anyhow::Result;
use duet_test_postgres::PostgresServer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let server = PostgresServer::start(&[]).await?;
    println!("{}", server.folder().display());
    let mut ignored = Vec::new();
    std::io::stdin().read_to_end(&mut ignored)?;
    Ok(())
}
