//! Typed access to the values of an object, which reports every mistake with its line and field path.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use super::Problem;
use super::names::closest;
use super::placeholders::Placeholder;
use super::quoted::quoted;
use super::scalar::Resolved;
use super::tree::{Entry, Node, Value};
use crate::model::Origin;

/// Problems kept of one file, and warnings likewise: enough to work on, and a bound on memory.
const MAX_PROBLEMS: usize = 1_000;

/// What is said about one file.
#[derive(Debug)]
pub(super) struct Report {
    file: Arc<str>,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    /// What is wrong because it is a placeholder, since it was last taken.
    placeholders: RefCell<Vec<(Placeholder, Problem)>>,
}

/// Stands in for a value that could not be read: a problem about it has been reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reported(());

pub(super) type Read<T> = Result<T, Reported>;

/// A value and the way to it.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    node: &'a Node,
    line: usize,
    step: Step<'a>,
    parent: Option<&'a Field<'a>>,
    report: &'a Report,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
    /// An item of a document's `items`.
    Item(usize),
}

/// A value that is an object.
#[derive(Clone, Copy)]
pub(super) struct Mapping<'a> {
    field: Field<'a>,
    entries: &'a [Entry],
}

impl Report {
    pub(super) fn new(file: &str) -> Self {
        Self {
            file: file.into(),
            problems: RefCell::default(),
            warnings: RefCell::default(),
            placeholders: RefCell::default(),
        }
    }

    pub(super) fn origin(&self, line: usize) -> Origin {
        Origin { file: self.file.clone(), line }
    }

    /// Adds what is said in another report about the same file.
    pub(super) fn add(&self, other: Self) {
        for (list, others) in [(&self.problems, other.problems), (&self.warnings, other.warnings)] {
            others.into_inner().into_iter().for_each(|problem| push(list, problem));
        }
    }

    /// Problems and warnings, by line.
    pub(super) fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        for (_, problem) in self.placeholders.take() {
            push(&self.problems, problem);
        }
        let sorted = |list: RefCell<Vec<Problem>>| {
            let mut list = list.into_inner();
            list.sort_by_key(|problem| problem.origin.line);
            list
        };
        (sorted(self.problems), sorted(self.warnings))
    }
}

/// Adds a problem, unless it is there: a value can be read more than once.
fn push(list: &RefCell<Vec<Problem>>, problem: Problem) {
    let mut list = list.borrow_mut();
    if list.contains(&problem) {
        return;
    }
    if list.len() < MAX_PROBLEMS {
        list.push(problem);
    } else if list.len() == MAX_PROBLEMS {
        let message = format!("there is more to say than the {MAX_PROBLEMS} messages before this one");
        list.push(Problem { field: String::new(), message, ..problem });
    }
}

impl<'a> Field<'a> {
    pub(super) fn root(node: &'a Node, report: &'a Report) -> Self {
        Self { node, line: node.line, step: Step::Root, parent: None, report }
    }

    /// An item of a document's list that was handed on by itself.
    pub(super) fn item(node: &'a Node, index: usize, report: &'a Report) -> Self {
        Self { step: Step::Item(index), ..Self::root(node, report) }
    }

    pub(super) fn origin(&self) -> Origin {
        self.report.origin(self.line)
    }

    fn remark(&self, message: impl Into<String>) -> Problem {
        Problem { origin: self.origin(), field: self.to_string(), message: message.into() }
    }

    /// Reports that the value is wrong.
    pub(super) fn problem(&self, message: impl Into<String>) -> Reported {
        let placeholder = match &self.node.value {
            Value::Scalar(scalar) => Placeholder::find(&scalar.text).map(|found| (found, &scalar.text)),
            _ => None,
        };
        match placeholder {
            Some((placeholder, text)) => {
                let problem = self.remark(placeholder.in_text(text, &self.report.file));
                self.report.placeholders.borrow_mut().push((placeholder, problem));
            }
            None => push(&self.report.problems, self.remark(message)),
        }
        Reported(())
    }

    /// The problems with values that are placeholders, since this was last asked.
    pub(super) fn take_placeholders(&self) -> Vec<(Placeholder, Problem)> {
        self.report.placeholders.take()
    }

    /// Reports what was held back.
    pub(super) fn report(&self, problem: Problem) {
        push(&self.report.problems, problem);
    }

    /// The value.
    pub(super) fn node(&self) -> &'a Node {
        self.node
    }

    /// Says something about a value that is good enough to go on with.
    pub(super) fn warn(&self, message: impl Into<String>) {
        push(&self.report.warnings, self.remark(message));
    }

    fn mismatch(&self, expected: &str) -> Reported {
        let found = match &self.node.value {
            Value::Repeated { first } => {
                return self.problem(format!("the key is already there on line {first}: keep one of them"));
            }
            Value::HandedOn => return Reported(()), // reported when it was read
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "an object".to_owned(),
            Value::Scalar(scalar) => match scalar.resolve() {
                Resolved::Null => "empty".to_owned(),
                Resolved::Bool(_) => format!("the boolean {}", quoted(&scalar.text)),
                Resolved::Integer(_) | Resolved::Float => format!("the number {}", quoted(&scalar.text)),
                Resolved::String(text) => format!("the string {}", quoted(text)),
            },
        };
        self.problem(format!("must be {expected}, but is {found}"))
    }

    /// An object; `null` is one without fields.
    pub(super) fn mapping(&self) -> Read<Mapping<'a>> {
        match &self.node.value {
            Value::Mapping(entries) => Ok(Mapping { field: *self, entries }),
            _ if self.node.is_null() => Ok(Mapping { field: *self, entries: &[] }),
            _ => Err(self.mismatch("an object (`key: value`)")),
        }
    }

    /// Reads every item of a list that was not handed on by itself; `null` is a list without items.
    pub(super) fn items<T>(&self, mut read: impl FnMut(&Field<'_>) -> T) -> Read<Vec<T>> {
        let items = match &self.node.value {
            Value::Sequence(items) => items.as_slice(),
            _ if self.node.is_null() => &[],
            _ => return Err(self.mismatch("a list")),
        };
        let items = items.iter().enumerate().filter(|(_, node)| !matches!(node.value, Value::HandedOn));
        let item = |(index, node): (usize, &Node)| {
            let step = Step::Index(index);
            read(&Field { node, line: node.line, step, parent: Some(self), report: self.report })
        };
        Ok(items.map(item).collect())
    }

    /// A string; `null` is an empty one.
    pub(super) fn text(&self) -> Read<&'a str> {
        let Value::Scalar(scalar) = &self.node.value else { return Err(self.mismatch("a string")) };
        match scalar.resolve() {
            Resolved::String(text) => Ok(text),
            Resolved::Bool(_) if scalar.text.len() == 1 => {
                self.warn("kubectl takes this letter for a boolean: put it in quotes");
                Ok(&scalar.text)
            }
            Resolved::Null => Ok(""),
            _ => Err(self.mismatch("a string: put it in quotes")),
        }
    }

    pub(super) fn boolean(&self) -> Read<bool> {
        if let Value::Scalar(scalar) = &self.node.value
            && let Resolved::Bool(value) = scalar.resolve()
        {
            return Ok(value);
        }
        Err(self.mismatch("true or false"))
    }

    /// The number, or the text where it is a string.
    pub(super) fn integer_or_text(&self, expected: &str) -> Read<Result<i64, &'a str>> {
        let Value::Scalar(scalar) = &self.node.value else { return Err(self.mismatch(expected)) };
        match scalar.resolve() {
            Resolved::Integer(Some(value)) => Ok(Ok(value)),
            Resolved::String(text) => Ok(Err(text)),
            _ => Err(self.mismatch(expected)),
        }
    }

    pub(super) fn integer(&self, expected: &str) -> Read<i64> {
        match self.integer_or_text(expected)? {
            Ok(value) => Ok(value),
            Err(_) => Err(self.mismatch(expected)),
        }
    }
}

/// The path, as `spec.ingress[0].from`.
impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Item(index) => write!(f, "items[{index}]"),
            Step::Key(key) if key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) => {
                if self.parent.is_some_and(|parent| !matches!(parent.step, Step::Root)) {
                    f.write_char('.')?;
                }
                f.write_str(key)
            }
            Step::Key(key) => write!(f, "[{}]", quoted(key)),
        }
    }
}

impl<'a> Mapping<'a> {
    pub(super) fn field(&self) -> &Field<'a> {
        &self.field
    }

    fn child<'b>(&'b self, entry: &'b Entry) -> Field<'b> {
        Field {
            node: &entry.value,
            line: entry.line,
            step: Step::Key(&entry.key),
            parent: Some(&self.field),
            report: self.field.report,
        }
    }

    /// Every key with its value.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, Field<'_>)> {
        self.entries.iter().map(|entry| (&*entry.key, self.child(entry)))
    }

    /// The value under a key; `null` is as if it were not there.
    pub(super) fn get<'b>(&'b self, key: &str) -> Option<Field<'b>> {
        self.get_or_null(key).filter(|field| !field.node.is_null())
    }

    pub(super) fn get_or_null<'b>(&'b self, key: &str) -> Option<Field<'b>> {
        self.entries.iter().find(|entry| *entry.key == *key).map(|entry| self.child(entry))
    }

    /// What stands at the end of a path, whatever it is; nothing is reported.
    pub(super) fn peek(&self, path: &[&str]) -> Option<&'a Node> {
        let (key, rest) = path.split_first()?;
        let node = self.entries.iter().find(|entry| *entry.key == **key).map(|entry| &entry.value)?;
        rest.iter().try_fold(node, |node, key| node.get(key)).filter(|node| !node.is_null())
    }

    pub(super) fn required<'b>(&'b self, key: &'b str) -> Read<Field<'b>> {
        self.get(key).ok_or_else(|| {
            let missing = Field { step: Step::Key(key), parent: Some(&self.field), ..self.field };
            missing.problem("is required")
        })
    }

    pub(super) fn optional<T>(&self, key: &str, read: impl FnOnce(&Field<'_>) -> Read<T>) -> Read<Option<T>> {
        self.get(key).map(|field| read(&field)).transpose()
    }

    /// A boolean that is false where it is left out.
    pub(super) fn flag(&self, key: &str) -> Read<bool> {
        self.get(key).map_or(Ok(false), |field| field.boolean())
    }

    /// Reads every item of the list under a key; none where there is no list.
    pub(super) fn list<T>(&self, key: &str, read: impl FnMut(&Field<'_>) -> T) -> Read<Vec<T>> {
        Ok(self.optional(key, |field| field.items(read))?.unwrap_or_default())
    }

    /// Reports every key that is none of these.
    pub(super) fn only(&self, known: &[&str]) -> Read<()> {
        let unknown =
            self.entries().filter(|(key, _)| !known.contains(key)).map(|(key, field)| {
                match closest(key, known.iter().copied()) {
                    Some(known) => field.problem(format!("unknown field; did you mean `{known}`?")),
                    None => field.problem(format!("unknown field; known here: {}", known.join(", "))),
                }
            });
        unknown.last().map_or(Ok(()), Err)
    }
}
