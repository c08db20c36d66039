//! Replays the corpora: inputs that the fuzzers kept, and every finding.

use std::{fs, path::Path};

use duet_fuzz_harness::TARGETS;

#[test]
fn every_corpus_is_replayed() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, run) in TARGETS {
        let mut replayed = 0;
        for entry in fs::read_dir(corpora.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")) {
            run(&fs::read(entry.unwrap().path()).unwrap());
            replayed += 1;
        }
        assert!(replayed > 0, "{name} has no corpus");
        eprintln!("evidence: inputs replayed of {name} = {replayed}");
    }
}
