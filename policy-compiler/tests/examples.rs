//! Every example means what the matrix beside it says.

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn examples_mean_what_their_matrices_say() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut seen = 0;
    for entry in fs::read_dir(&examples).expect("there are examples") {
        let example = entry.expect("an entry").path();
        let output = Command::new(env!("CARGO_BIN_EXE_podfence"))
            .args(["matrix", "--external", "203.0.113.9", "--external", "203.0.113.70", "-o", "csv", "-f"])
            .arg(example.join("manifests.yaml"))
            .output()
            .expect("podfence runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let expected = fs::read_to_string(example.join("matrix.csv")).expect("an expected matrix");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{}", example.display());
        seen += 1;
    }
    assert!(seen >= 7, "only {seen} examples");
}
