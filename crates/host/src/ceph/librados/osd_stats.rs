//! What Ceph says of each OSD, as old clients read it, in three questions to the monitors.

use std::collections::BTreeMap;

use pvc_core::model::ceph::{OsdId, OsdStats};
use serde_json::json;

use super::{
    super::{CephError, cluster::Cluster},
    osd_dump::{self, Figures, Osd},
};

/// The longest word of the table that is taken over.
const LONGEST_WORD: usize = 20;

/// A line of `osd status`, which is a table for people.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Line {
    host: String,
    used: String,
    avail: String,
    wr_ops: String,
    wr_data: String,
    rd_ops: String,
    rd_data: String,
}

pub(super) fn ask(cluster: &Cluster) -> Result<BTreeMap<OsdId, OsdStats>, CephError> {
    let osds = osd_dump::dump(cluster)?.osds;
    let used = osd_dump::used(cluster)?;
    // A module of the manager, which a site may have switched off: what only this says is then not known.
    let table = cluster.ask_monitors(&json!({"prefix": "osd status"}).to_string()).unwrap_or_default();
    let mut lines = lines(&String::from_utf8_lossy(&table));
    let stats = |osd: Osd| {
        let line = lines.remove(&osd.id).unwrap_or_default();
        let used = used.get(&osd.id);
        (OsdId(osd.id), of_osd(osd, used, line))
    };
    Ok(osds.into_iter().map(stats).collect())
}

fn of_osd(osd: Osd, used: Option<&Figures>, line: Line) -> OsdStats {
    OsdStats {
        uuid: osd.uuid,
        up: osd.up,
        r#in: osd.r#in,
        primary_affinity: osd.primary_affinity,
        utilization: used.map_or(0.0, |used| used.utilization),
        var: used.map_or(0.0, |used| used.var),
        pgs: used.map_or(0, |used| used.pgs),
        kb: used.map_or(0, |used| used.kb),
        weight: used.map_or(0.0, |used| used.crush_weight),
        reweight: used.map_or(0.0, |used| used.reweight),
        node: line.host,
        used: line.used,
        avail: line.avail,
        wr_ops: line.wr_ops,
        wr_data: line.wr_data,
        rd_ops: line.rd_ops,
        rd_data: line.rd_data,
        state: osd.state.join(","),
    }
}

/// The lines by the number that they begin with. Of an OSD that has never been heard the host is left out; other lines are no OSD's.
fn lines(table: &str) -> BTreeMap<u32, Line> {
    let line = |text: &str| {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (host, rest) = match words.as_slice() {
            [_, host, rest @ ..] if rest.len() == 7 => (*host, rest),
            [_, rest @ ..] if rest.len() == 7 => ("", rest),
            _ => return None,
        };
        let id = words[0].parse().ok()?;
        if words.iter().any(|word| word.len() > LONGEST_WORD && *word != host) || host.len() > 253 {
            return None;
        }
        let short = host.split('.').next().unwrap_or_default();
        let [used, avail, wr_ops, wr_data, rd_ops, rd_data] = [0, 1, 2, 3, 4, 5].map(|i| rest[i].to_owned());
        Some((id, Line { host: short.to_owned(), used, avail, wr_ops, wr_data, rd_ops, rd_data }))
    };
    table.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_osd_status_is_read_line_by_line() {
        let table = "\
ID  HOST                 USED  AVAIL  WR OPS  WR DATA  RD OPS  RD DATA  STATE      
 0  hv1.example.org     1067M  18.9G     12     4096k      0        0   exists,up  
 1  hv2                 1.2G   18.7G      0        0       3     12.0k  exists,up  
12                         0      0       0        0       0        0   exists,new 
 x  hv3                    0      0       0        0       0        0   exists,up  
";
        let found = lines(table);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [0, 1, 12]);
        let line = |[host, used, avail, wr_ops, wr_data, rd_ops, rd_data]: [&str; 7]| Line {
            host: host.into(),
            used: used.into(),
            avail: avail.into(),
            wr_ops: wr_ops.into(),
            wr_data: wr_data.into(),
            rd_ops: rd_ops.into(),
            rd_data: rd_data.into(),
        };
        assert_eq!(found[&0], line(["hv1", "1067M", "18.9G", "12", "4096k", "0", "0"]));
        assert_eq!(found[&1], line(["hv2", "1.2G", "18.7G", "0", "0", "3", "12.0k"]));
        assert_eq!(found[&12], line(["", "0", "0", "0", "0", "0", "0"]));
        assert_eq!(lines("no table\n\n0 a b\n"), BTreeMap::new());
        assert_eq!(lines(&format!("0 h {} 1 2 3 4 5 up", "9".repeat(1000))), BTreeMap::new());
    }
}
