//! Makes the JavaScript glue for a wasm module: `duet-bindgen MODULE TARGET FOLDER`.
//!
//! `TARGET` is `nodejs`, `web` or `bundler`. It is the library behind `wasm-bindgen`'s own command
//! line, which cannot be installed as quickly and brings an HTTP client and a server along.
#![forbid(unsafe_code)]

use std::{env, process::ExitCode};

use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [module, target, folder] = arguments.as_slice() else {
        eprintln!("usage: duet-bindgen MODULE nodejs|web|bundler FOLDER");
        return ExitCode::from(2);
    };
    let mut bindgen = Bindgen::new();
    bindgen.input_path(module).typescript(true);
    // Names of functions are a fifth of the module, and no page uses them. Under Node they make
    // traces readable.
    if target != "nodejs" {
        bindgen.remove_name_section(true).remove_producers_section(true);
    }
    let chosen = match target.as_str() {
        "nodejs" => bindgen.nodejs(true),
        "web" => bindgen.web(true),
        "bundler" => bindgen.bundler(true),
        other => {
            eprintln!("unknown target {other}: expected nodejs, web or bundler");
            return ExitCode::from(2);
        }
    };
    match chosen.and_then(|bindgen| bindgen.generate(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{module}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
