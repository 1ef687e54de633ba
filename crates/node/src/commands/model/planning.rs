//! `qurrent model plan`.

use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::json;
use types::units::BitsPerSecond;
use vault::{Class, ModelFile, Plan, Rules};

use super::{MappingArgs, PlanArgs, failed};
use crate::commands::print;
use crate::failure::Outcome;

/// Most wrapping keys for each site when the user does not say.
pub(crate) const BUDGET: u32 = 8;

impl MappingArgs {
    /// Opens the model file as the user says.
    pub(crate) fn open(&self, file: &std::path::Path) -> Outcome<ModelFile> {
        let open = if self.opaque { ModelFile::open_opaque } else { ModelFile::open };
        open(file).map_err(failed)
    }

    /// The rules of the user, or the default ones.
    pub(crate) fn rules(&self) -> Rules {
        if self.rule.is_empty() { Rules::default() } else { Rules(self.rule.clone()) }
    }

    /// The user's budget, if there is one.
    pub(crate) fn budget(&self) -> Option<u32> {
        self.budget
    }
}

/// Maps a file and prints the map.
///
/// # Errors
/// If the file cannot be read or is not what it should be.
pub fn plan(args: &PlanArgs, json: bool) -> Outcome<()> {
    let file = args.mapping.open(&args.file)?;
    let budget = args.mapping.budget().unwrap_or(BUDGET);
    let plan = Plan::new(&file, &args.mapping.rules(), budget).map_err(failed)?;
    let rates: Vec<BitsPerSecond> = args.rate.iter().copied().map(BitsPerSecond).collect();
    let gather = |rate: &BitsPerSecond| plan.time_to_gather(*rate);
    let document = json!({
        "file": args.file,
        "format": plan.format(),
        "budget": budget,
        "totals": plan.totals(),
        "gather": rates.iter().map(|rate| json!({
            "bit_s": rate.0,
            "seconds": gather(rate).map(|time| time.as_secs_f64()),
        })).collect::<Vec<_>>(),
        "pieces": plan.pieces().iter().map(|planned| json!({
            "name": planned.piece.name,
            "tensor": planned.piece.is_tensor(),
            "class": planned.class,
            "wanted": planned.wanted,
            "security": SECURITY,
            "bytes": planned.piece.len,
            "chunks": planned.piece.chunk_count(),
            "qkd_bits_per_site": planned.key_bits().0,
        })).collect::<Vec<_>>(),
    });
    print(json, &document, || {
        let totals = plan.totals();
        let mut text = format!("{}\n", table(&plan, args.all));
        text.push_str(&format!(
            "{} tensors, {} in {} chunks and {} pack objects; all of it computationally secure ({SECURITY})\n",
            totals.tensors,
            size(totals.file_bytes),
            totals.chunks,
            totals.packs,
        ));
        text.push_str(&format!(
            "each receiving site costs {} quantum keys = {} bit: one for the model key, {} for tensors with a key of their own ({})\n",
            totals.keys_per_site,
            totals.key_bits_per_site,
            totals.own_key_tensors,
            size(totals.own_key_bytes),
        ));
        if totals.short_of_budget > 0 {
            text.push_str(&format!(
                "{} tensors asked for a key of their own and get none with a budget of {budget}: raise it with --budget\n",
                totals.short_of_budget
            ));
        }
        for rate in &rates {
            let time = gather(rate).map_or_else(|| "never".to_owned(), duration);
            text.push_str(&format!("gathered at {rate} in {time}\n"));
        }
        text
    })
}

/// What every class of today gives.
pub(crate) const SECURITY: &str = "AES-256-GCM";

fn table(plan: &Plan, all: bool) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["tensor", "class", "bytes", "chunks", "QKD bit/site"]);
    let mut rest = (0_u64, 0_u64, 0_u64);
    for planned in plan.pieces() {
        let piece = &planned.piece;
        if !all && planned.class == Class::Derived && planned.wanted == Class::Derived {
            rest = (rest.0 + 1, rest.1 + piece.len, rest.2 + piece.chunk_count());
            continue;
        }
        let class = match (planned.class, planned.wanted) {
            (class, wanted) if class == wanted => class.to_string(),
            (class, wanted) => format!("{class} (asked for {wanted})"),
        };
        let (bytes, chunks) = (piece.len.to_string(), piece.chunk_count().to_string());
        table.add_row([piece.name.clone(), class, bytes, chunks, planned.key_bits().0.to_string()]);
    }
    if rest.0 > 0 {
        let name = format!("{} others (--all shows them)", rest.0);
        table.add_row([name, Class::Derived.to_string(), rest.1.to_string(), rest.2.to_string(), "0".to_owned()]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Bytes for people.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        10_000..=9_999_999 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 120.0 { format!("{seconds:.1} s") } else { format!("{:.1} min", seconds / 60.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_for_people() {
        assert_eq!([size(9_999), size(12_345), size(90_868_376)], ["9999 B", "12.3 kB", "90.9 MB"]);
        assert_eq!([duration(Duration::from_millis(4100)), duration(Duration::from_secs(150))], ["4.1 s", "2.5 min"]);
    }
}
