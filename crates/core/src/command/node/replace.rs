//! `pvc node replace`: an operator's word that the machine that had a node's name is gone for good, so that another may take it.

use super::{Life, Signature};
use crate::{
    command::{Accepted, Refusal, find},
    model::{ClusterView, MachineId, MachineRecord, Replaced},
    plan::machine::Recorded,
};

/// Marks the recorded machine as gone. What the name claims is the next machine's then, which starts it: refused wherever the first
/// may be well.
pub fn replace(
    view: &ClusterView,
    name: &str,
    recorded: &Recorded,
    life: &Life,
    signature: Signature,
) -> Result<Accepted<MachineRecord>, Refusal> {
    let refused = |why: &str, todo: String| {
        Err(Refusal::refused(format!("the machine of {name} was not taken for gone"), why, todo))
    };
    if life.heard {
        return refused(
            "its keepalives arrive",
            "to put it out of the cluster, `pvc node flush` first".to_owned(),
        );
    }
    if life.instance.is_some() {
        return refused(
            "its daemon is connected to the state store",
            format!(
                "if it has just died, its session ends within seconds: try again. If it works, `pvc node flush {name}`, then stop pvcd \
                 there: another machine takes a name that nothing claims without further ado"
            ),
        );
    }
    let machine = match recorded {
        Recorded::Nobody => {
            find::node_in(view, name)?;
            return Ok(Accepted::already(
                "no machine is recorded: the first that comes with this name takes it",
            ));
        }
        Recorded::Machine(machine) if machine.replaced.is_some() => {
            return Ok(Accepted::already(
                "somebody has said that already: the next machine that comes takes the name",
            ));
        }
        Recorded::Machine(machine) => machine.clone(),
        Recorded::Unreadable => MachineRecord {
            id: MachineId::default(),
            boot: String::new(),
            host: String::new(),
            since_unix_s: 0,
            replaced: None,
        },
    };
    let replaced = Some(Replaced { by: signature.by, at_unix_s: signature.at_unix_s });
    let note = "the next machine that runs pvcd as this node takes what it claims, and starts it";
    Ok(Accepted::write(MachineRecord { replaced, ..machine }, [note.to_owned()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{
        RefusalKind,
        testing::{node, view},
    };

    fn machine() -> MachineRecord {
        MachineRecord {
            id: MachineId::of(None, Some("S1"), None, None),
            boot: "b1".into(),
            host: "old".into(),
            since_unix_s: 1,
            replaced: None,
        }
    }

    fn ask(name: &str, recorded: &Recorded, life: &Life) -> Result<Accepted<MachineRecord>, Refusal> {
        let signature = Signature { by: "an operator on desk".into(), at_unix_s: 7 };
        replace(&view(&[node("hv1")], &[]), name, recorded, life, signature)
    }

    #[test]
    fn a_machine_is_said_to_be_gone_unless_it_may_be_well() {
        let recorded = Recorded::Machine(machine());
        let gone = ask("hv1", &recorded, &Life::default()).unwrap().change.unwrap();
        let word = Replaced { by: "an operator on desk".into(), at_unix_s: 7 };
        assert_eq!(gone, MachineRecord { replaced: Some(word), ..machine() });
        assert_eq!(ask("hv1", &Recorded::Machine(gone), &Life::default()).unwrap().change, None);
        for life in
            [Life { heard: true, ..Life::default() }, Life { instance: Some("i1".into()), ..Life::default() }]
        {
            assert_eq!(ask("hv1", &recorded, &life).unwrap_err().kind, RefusalKind::Refused, "{life:?}");
        }
    }

    #[test]
    fn a_name_that_nobody_had_is_free_and_one_that_nobody_knows_is_not_found() {
        assert_eq!(ask("hv1", &Recorded::Nobody, &Life::default()).unwrap().change, None);
        let unknown = ask("hv9", &Recorded::Nobody, &Life::default()).unwrap_err();
        assert_eq!(unknown.kind, RefusalKind::NotFound);
        // Its keys may be gone, and its record not.
        assert!(ask("hv9", &Recorded::Unreadable, &Life::default()).unwrap().change.is_some());
    }
}
