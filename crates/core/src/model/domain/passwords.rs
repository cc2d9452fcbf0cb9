//! A definition without the passwords of the guest's displays, for who may look at the cluster and not at the screens.

use std::{borrow::Cow, ops::Range};

use super::read::Definition;

/// The attribute that has one: of `<graphics>`, as libvirt knows it, and of whatever else.
const PASSWORD: &str = "passwd";
/// What stands there instead.
const HIDDEN: &str = "***";

/// The definition as it is, but for passwords of displays. What is commented out may have some, too. `None`: it cannot be read, and nobody knows
/// what is in it.
pub fn without_passwords(xml: &str) -> Option<Cow<'_, str>> {
    // A name cannot be written in another way.
    if !xml.contains(PASSWORD) {
        return Some(xml.into());
    }
    let definition = Definition::parse(xml).ok()?;
    let mut shown = xml.to_owned();
    let mut hidden: Vec<Range<usize>> = definition.places_of(PASSWORD).collect();
    // From the end, so that what comes before keeps its place.
    hidden.sort_by_key(|range| std::cmp::Reverse(range.start));
    for range in hidden {
        shown.replace_range(range, HIDDEN);
    }
    Some(shown.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_hidden_wherever_it_stands_and_all_else_is_as_it_was() {
        let with = |graphics: &str| format!("<domain type='kvm'>\n <devices>{graphics}</devices>\n</domain>");
        for (graphics, shown) in [
            (
                "<graphics type='vnc' passwd='s3cret' port='1'/>",
                "<graphics type='vnc' passwd='***' port='1'/>",
            ),
            ("<graphics passwd = \"s3cret\n'\"/>", "<graphics passwd = \"***\"/>"),
            ("<graphics passwd='&#115;3cret'/>", "<graphics passwd='***'/>"),
            (
                "<graphics passwd='s3cret'/><graphics passwd='s3cret'/>",
                "<graphics passwd='***'/><graphics passwd='***'/>",
            ),
            ("<x:graphics xmlns:x='y' x:passwd='s3cret'/>", "<x:graphics xmlns:x='y' x:passwd='***'/>"),
            ("<!-- <graphics passwd='s3cret'/> -->", "<!--***-->"),
            ("<graphics passwd=''/>", "<graphics passwd='***'/>"),
        ] {
            assert_eq!(
                without_passwords(&with(graphics)).as_deref(),
                Some(with(shown).as_str()),
                "{graphics}"
            );
        }
        let without = with("<graphics type='vnc'/>");
        assert!(matches!(without_passwords(&without), Some(Cow::Borrowed(same)) if same == without));
        assert_eq!(without_passwords("<domain passwd='s3cret'"), None, "nobody knows where it ends");
        assert_eq!(without_passwords("rubbish").as_deref(), Some("rubbish"), "none is in it");
    }
}
