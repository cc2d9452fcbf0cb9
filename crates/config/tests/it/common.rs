//! The manual's example and small edits of it: most tests are "the example, with this line changed".

/// The manual's example, byte for byte.
pub(crate) const EXAMPLE: &str = include_str!("manual-example.yaml");

/// The example with `from` replaced, which must stand in it exactly once.
pub(crate) fn edited(from: &str, to: &str) -> String {
    edit(EXAMPLE, from, to)
}

/// `text` with `from` replaced, which must stand in it exactly once.
pub(crate) fn edit(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from:?} must stand in the text exactly once");
    text.replace(from, to)
}

/// The example with one line of one of its three networks' interfaces (`upstream`, `cluster`, `storage`) changed.
pub(crate) fn interface(network: &str, from: &str, to: &str) -> String {
    let networking = EXAMPLE.find("      networking:\n").expect("the example has interfaces");
    let section = networking + EXAMPLE[networking..].find(&format!("        {network}:\n")).expect("network");
    let line = section + EXAMPLE[section..].find(from).expect("line");
    format!("{}{to}{}", &EXAMPLE[..line], &EXAMPLE[line + from.len()..])
}
