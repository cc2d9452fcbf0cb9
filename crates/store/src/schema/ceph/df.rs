//! The text of `rados df`, as the tool prints it: old clients show it as it is.

use std::fmt::Write as _;

use pvc_core::model::ceph::{Figures, PoolFigures};

const COLUMNS: [&str; 14] = [
    "POOL_NAME",
    "USED",
    "OBJECTS",
    "CLONES",
    "COPIES",
    "MISSING_ON_PRIMARY",
    "UNFOUND",
    "DEGRADED",
    "RD_OPS",
    "RD",
    "WR_OPS",
    "WR",
    "USED COMPR",
    "UNDER COMPR",
];

/// A line a pool, then the sums.
pub fn rados_df(figures: &Figures) -> String {
    let rows: Vec<[String; 14]> = figures.pools.iter().map(|(name, pool)| row(name, pool)).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].len());
        cells.chain([COLUMNS[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; 14] = std::array::from_fn(width);
    let mut text = String::new();
    let mut line = |cells: [&str; 14]| {
        let mut padded = format!("{:<1$}", cells[0], widths[0]);
        for (cell, width) in cells.iter().zip(widths).skip(1) {
            let _ = write!(padded, "  {cell:>width$}");
        }
        let _ = writeln!(text, "{padded}");
    };
    line(COLUMNS);
    for row in &rows {
        line(row.each_ref().map(String::as_str));
    }
    let space = figures.space;
    let _ = write!(
        text,
        "\ntotal_objects    {}\ntotal_used       {}\ntotal_avail      {}\ntotal_space      {}\n",
        space.objects,
        bytes(space.used_bytes),
        bytes(space.free_bytes),
        bytes(space.total_bytes),
    );
    text
}

fn row(name: &str, pool: &PoolFigures) -> [String; 14] {
    let stats = &pool.stats;
    [
        name.to_owned(),
        bytes(stats.size_bytes),
        stats.num_objects.to_string(),
        stats.num_object_clones.to_string(),
        stats.num_object_copies.to_string(),
        stats.num_objects_missing_on_primary.to_string(),
        stats.num_objects_unfound.to_string(),
        stats.num_objects_degraded.to_string(),
        stats.read_ops.to_string(),
        bytes(stats.read_bytes),
        stats.write_ops.to_string(),
        bytes(stats.write_bytes),
        bytes(pool.compressed_bytes),
        bytes(pool.uncompressed_bytes),
    ]
}

/// `4.1 KiB`: whole where it is, else with as many decimals as seven characters hold.
#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = (bytes.max(1).ilog2() / 10) as usize;
    let (unit, scale) = (UNITS[power.min(6)], 1_u64 << (10 * power.min(6)));
    if bytes.is_multiple_of(scale) {
        return format!("{} {unit}", bytes / scale);
    }
    let with = |decimals: usize| format!("{:.decimals$} {unit}", bytes as f64 / scale as f64);
    [2, 1].into_iter().map(with).find(|text| text.len() <= 7).unwrap_or_else(|| with(0))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pvc_core::model::ceph::{PoolStats, Space};

    use super::*;

    #[test]
    fn it_is_what_the_tool_of_ceph_16_prints() {
        let stats = PoolStats {
            id: 1,
            size_bytes: 4166,
            num_objects: 6,
            num_object_copies: 18,
            read_ops: 47,
            read_bytes: 34 << 10,
            write_ops: 11,
            write_bytes: 12 << 10,
            ..PoolStats::default()
        };
        let figures = Figures {
            space: Space {
                objects: 6,
                used_bytes: 113 << 10,
                free_bytes: 805_197_719,
                total_bytes: 768 << 20,
            },
            pools: BTreeMap::from([
                ("vms".to_owned(), PoolFigures { stats, ..PoolFigures::default() }),
                ("device_health_metrics".to_owned(), PoolFigures::default()),
            ]),
            ..Figures::default()
        };
        let expected = "\
POOL_NAME                 USED  OBJECTS  CLONES  COPIES  MISSING_ON_PRIMARY  UNFOUND  DEGRADED  RD_OPS      RD  WR_OPS      WR  USED COMPR  UNDER COMPR
device_health_metrics      0 B        0       0       0                   0        0         0       0     0 B       0     0 B         0 B          0 B
vms                    4.1 KiB        6       0      18                   0        0         0      47  34 KiB      11  12 KiB         0 B          0 B

total_objects    6
total_used       113 KiB
total_avail      768 MiB
total_space      768 MiB
";
        assert_eq!(rados_df(&figures), expected);
    }

    #[test]
    fn bytes_are_told_as_ceph_tells_them() {
        for (number, told) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (4166, "4.1 KiB"),
            (12_345, "12 KiB"),
            (1_047_552, "1023 KiB"),
            (805_197_719, "768 MiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(number), told, "{number}");
        }
    }
}
