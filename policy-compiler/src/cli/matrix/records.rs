//! The formats with a record for each row: JSON and CSV.

use std::io::{self, Write};

use policy_compiler::judge::Traffic;

use super::answers::{Answer, Answers, Row};
use super::end::End;
use crate::cli::args::Only;

/// What the records are about.
pub(super) struct Records<'r, 'a> {
    pub(super) ends: &'r [End<'a>],
    pub(super) sources: &'r [usize],
    pub(super) destinations: &'r [usize],
    pub(super) only: Option<Only>,
}

impl<'a> Records<'_, 'a> {
    /// An array of objects, one a line.
    pub(super) fn write_json(&self, answers: &mut Answers<'a>, output: &mut impl Write) -> io::Result<()> {
        output.write_all(b"[")?;
        let mut separator = "\n";
        let quote = |name: &str| serde_json::Value::from(name).to_string();
        self.for_each(answers, quote, json_of_row, |from, to, row| {
            write_pieces(output, &[separator, "{\"from\":", from, ",\"to\":", to, row])?;
            separator = ",\n";
            Ok(())
        })?;
        output.write_all(b"\n]\n")
    }

    /// A header, then a line for each row; `family` is empty where the families agree.
    pub(super) fn write_csv(&self, answers: &mut Answers<'a>, output: &mut impl Write) -> io::Result<()> {
        output.write_all(b"from,to,port,protocol,family,egress,ingress,verdict\n")?;
        let quote = |name: &str| {
            if name.contains([',', '"', '\n', '\r']) {
                format!("\"{}\"", name.replace('"', "\"\""))
            } else {
                name.to_owned()
            }
        };
        self.for_each(answers, quote, csv_of_row, |from, to, row| write_pieces(output, &[from, ",", to, row]))
    }

    /// Calls `write` for each row with the names of its ends and what `render` makes of it. There may be millions of
    /// rows, so names and different answers are rendered once.
    fn for_each(
        &self,
        answers: &mut Answers<'a>,
        quote: impl Fn(&str) -> String,
        render: impl Fn(Row) -> String,
        mut write: impl FnMut(&str, &str, &str) -> io::Result<()>,
    ) -> io::Result<()> {
        let named = |members: &[usize]| -> Vec<(&End<'a>, String)> {
            let ends = members.iter().filter_map(|index| self.ends.get(*index));
            ends.map(|end| (end, quote(&end.name))).collect()
        };
        let (sources, destinations) = (named(self.sources), named(self.destinations));
        let mut rendered: Vec<Vec<String>> = Vec::new();
        for (from, from_name) in &sources {
            for (to, to_name) in &destinations {
                let index = answers.index_of(from, to);
                for answer in answers.different().iter().skip(rendered.len()) {
                    rendered.push(self.rows(answer).copied().map(&render).collect());
                }
                let rows = rendered.get(index).into_iter().flatten();
                rows.into_iter().try_for_each(|row| write(from_name, to_name, row))?;
            }
        }
        Ok(())
    }

    fn rows<'r>(&self, answer: &'r Answer) -> impl Iterator<Item = &'r Row> {
        let rows = match answer {
            Answer::Rows(rows) => rows.as_slice(),
            Answer::Exact(_) => &[],
        };
        let only = self.only;
        rows.iter().filter(move |row| only.is_none_or(|only| (only == Only::Allowed) == row.allowed()))
    }
}

/// The number of the port, and the protocol.
fn port_and_protocol(traffic: Traffic) -> (Option<String>, &'static str) {
    match traffic {
        Traffic::Port(protocol, port) => (Some(port.to_string()), protocol.as_str()),
        Traffic::Other => (None, "ICMP"),
    }
}

fn json_of_row(row: Row) -> String {
    let (port, protocol) = port_and_protocol(row.traffic);
    let port = port.unwrap_or_else(|| "null".to_owned());
    let (egress, ingress, verdict) = (word(row.egress), word(row.ingress), word(row.allowed()));
    let family = row.family.map(|family| format!(",\"family\":\"{family}\"")).unwrap_or_default();
    format!(
        ",\"port\":{port},\"protocol\":\"{protocol}\",\"egress\":\"{egress}\",\"ingress\":\"{ingress}\",\
         \"verdict\":\"{verdict}\"{family}}}"
    )
}

fn csv_of_row(row: Row) -> String {
    let (port, protocol) = port_and_protocol(row.traffic);
    let port = port.unwrap_or_default();
    let (egress, ingress, verdict) = (word(row.egress), word(row.ingress), word(row.allowed()));
    let family = row.family.map(|family| family.to_string()).unwrap_or_default();
    format!(",{port},{protocol},{family},{egress},{ingress},{verdict}\n")
}

fn word(allowed: bool) -> &'static str {
    if allowed { "allow" } else { "deny" }
}

fn write_pieces(output: &mut impl Write, pieces: &[&str]) -> io::Result<()> {
    pieces.iter().try_for_each(|piece| output.write_all(piece.as_bytes()))
}
