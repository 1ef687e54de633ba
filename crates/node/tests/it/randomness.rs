//! Output key against batteries of randomness tests that somebody else wrote: rngtest (FIPS 140-2) and dieharder.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use node::bench::end::fast_link;
use sim::line::Line;
use types::network::Security;

use crate::world::{ok_of, str_of};

const MEGABITS: usize = 100;

/// Distils key from photons until there is enough of it.
fn write_key(file: &Path) {
    let mut link = fast_link();
    link.hardware.misalignment = 0.005;
    link.decoy.block_bits = 4_000_000;
    let security = Security { epsilon_secrecy: 1e-10, epsilon_correctness: 1e-15 };
    let mut line = Line::new(&link, security, 2_026).unwrap();
    let mut out = BufWriter::new(File::create(file).unwrap());
    let mut written = 0;
    while written < MEGABITS * 1_000_000 / 8 {
        line.shine(50_000_000).unwrap();
        while let Some([alice, bob]) = line.take() {
            let [alice, bob] = [alice.key, bob.key].map(|key| key.into_public("key of a test, for a battery of tests"));
            assert!(alice == bob);
            out.write_all(&alice).unwrap();
            written += alice.len();
        }
        assert!(line.aborted().is_empty(), "{:?}", line.aborted());
    }
    out.flush().unwrap();
}

#[test]
fn a_hundred_megabits_of_key_pass_the_batteries_slow_() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    write_key(&file);

    // FIPS 140-2 on pieces of 20,000 bits. About one in 1,250 fails by chance: four are expected here.
    let output = Command::new("rngtest").stdin(File::open(&file).unwrap()).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let count = |what: &str| -> u64 {
        let line = said.lines().find_map(|line| line.split_once(what)).unwrap_or_else(|| panic!("{what}: {said}"));
        line.1.trim().parse().unwrap()
    };
    assert!(count("FIPS 140-2 successes:") > 4_900, "{said}");
    assert!(count("FIPS 140-2 failures:") <= 14, "{said}");

    // The tests of NIST SP 800-22 that dieharder has and that 12.5 MB feed without being read twice.
    for test in ["100", "101", "102"] {
        let said = ok_of(Command::new("dieharder").args(["-g", "201", "-f", str_of(&file), "-d", test, "-p", "25"]));
        assert!(said.contains("PASSED") || said.contains("WEAK"), "{said}");
        assert!(!said.contains("FAILED"), "{said}");
    }
}
