//! A definition without the passwords of the guest's displays, for who may look at the cluster and not at the screens.

use std::{borrow::Cow, ops::Range};

use super::{DomainError, DomainSpec, read::Definition};

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

impl DomainSpec {
    /// Refuses what was shown without its passwords: written back, it would make `***` the password.
    ///
    /// # Errors
    /// If such a password is in it.
    pub fn with_its_passwords(self) -> Result<Self, DomainError> {
        let definition = Definition::parse(&self.xml)?;
        let hidden = definition
            .elements()
            .find(|element| element.attribute(PASSWORD).is_some_and(|its| its == HIDDEN));
        let refused = hidden.map(|element| {
            element.error(
                format!(
                    "the {PASSWORD} of <{}> is {HIDDEN}: it was read by a token that may not see it",
                    element.name()
                ),
                "read it with a token of the role operate, or put the password in",
            )
        });
        refused.map_or(Ok(self), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_shown_without_its_password_is_not_taken_for_whole() {
        let with = |passwd: &str| {
            let id = crate::command::testing::id(1);
            format!(
                "<domain type='kvm'><name>web1</name><uuid>{id}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>\n\
                 <devices><graphics type='vnc' passwd='{passwd}'/></devices></domain>"
            )
        };
        assert!(DomainSpec::parse(&with("s3cret")).is_ok());
        let shown = without_passwords(&with("s3cret")).unwrap().into_owned();
        let error = DomainSpec::parse(&shown).unwrap_err();
        assert!(error.what.contains("a token that may not see it") && error.line == 2, "{error:?}");
    }

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
