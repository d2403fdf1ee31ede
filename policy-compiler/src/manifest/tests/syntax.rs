//! YAML and JSON as text: what is one, what is refused, and the limits.

use std::io::{self, Read};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::{cluster, parse, policy_text, reading};
use crate::manifest::Resource;
use crate::manifest::documents;
use crate::manifest::scalar::Resolved;
use crate::manifest::tree::{Node, Part, Value};

#[track_caller]
fn assert_refused(text: &[u8], expected: &str) {
    let start = Instant::now();
    let problem = parse(text, "f").expect_err(&String::from_utf8_lossy(&text[..text.len().min(200)]));
    assert_eq!(problem.to_string(), expected);
    assert!(start.elapsed() < Duration::from_secs(20), "{expected}: {:?}", start.elapsed());
}

/// The documents of a text that is in order, without a list.
pub(super) fn documents(text: &[u8]) -> Vec<Node> {
    documents_of(text)
}

fn documents_of(source: impl Read) -> Vec<Node> {
    let mut documents = Vec::new();
    documents::read(source, "f", &mut |part| match part {
        Part::Document(node) => documents.push(node),
        Part::Item { .. } => panic!("a list"),
    })
    .unwrap();
    documents
}

fn repeated(range: Range<usize>, text: impl Fn(usize) -> String) -> String {
    range.map(text).collect::<Vec<_>>().concat()
}

#[test]
fn scalars_mean_what_they_mean_to_kubectl() {
    for (text, expected) in [
        ("", Resolved::Null),
        ("~", Resolved::Null),
        ("Null", Resolved::Null),
        ("'null'", Resolved::String("null")),
        ("yes", Resolved::Bool(true)),
        ("Off", Resolved::Bool(false)),
        ("\"yes\"", Resolved::String("yes")),
        ("yeS", Resolved::String("yeS")),
        ("!!str yes", Resolved::String("yes")),
        ("!!int '5'", Resolved::Integer(Some(5))),
        ("0", Resolved::Integer(Some(0))),
        ("-12", Resolved::Integer(Some(-12))),
        ("+12", Resolved::Integer(Some(12))),
        ("1_000", Resolved::Integer(Some(1000))),
        ("0x1F", Resolved::Integer(Some(31))),
        ("0o17", Resolved::Integer(Some(15))),
        ("0b11", Resolved::Integer(Some(3))),
        ("0x", Resolved::String("0x")),
        ("0xg", Resolved::String("0xg")),
        ("017", Resolved::Integer(None)),
        ("99999999999999999999", Resolved::Integer(None)),
        ("1.5", Resolved::Float),
        ("1.", Resolved::Float),
        (".5", Resolved::Float),
        ("12e4567", Resolved::Float),
        ("-.inf", Resolved::Float),
        (".NaN", Resolved::Float),
        ("1.2.3", Resolved::String("1.2.3")),
        ("10.0.0.0/8", Resolved::String("10.0.0.0/8")),
        ("1a", Resolved::String("1a")),
        (".", Resolved::String(".")),
        ("2024-01-01", Resolved::String("2024-01-01")),
    ] {
        let text = format!("- {text}\n");
        let [root] = &*documents(text.as_bytes()) else { panic!("{text}") };
        let Value::Sequence(items) = &root.value else { panic!("{text}") };
        let Value::Scalar(scalar) = &items[0].value else { panic!("{text}") };
        assert_eq!(scalar.resolve(), expected, "{text}");
    }
}

/// A tree as JSON, with the lines on which lists and objects start.
fn show(node: &Node) -> String {
    let list = |parts: Vec<String>| parts.join(",");
    match &node.value {
        Value::Scalar(scalar) => match scalar.resolve() {
            Resolved::Null => "null".to_owned(),
            Resolved::String(text) => format!("{text:?}"),
            _ => scalar.text.to_string(),
        },
        Value::Sequence(items) => format!("{}[{}]", node.line, list(items.iter().map(show).collect())),
        Value::Mapping(entries) => {
            let entries = entries.iter().map(|entry| format!("{}:{}", entry.key, show(&entry.value)));
            format!("{}{{{}}}", node.line, list(entries.collect()))
        }
        Value::Repeated { first } => format!("repeated({first})"),
        Value::HandedOn => "handed on".to_owned(),
    }
}

fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(bytes).collect()
}

/// What `kubectl` reads is read, and as `kubectl` reads it.
#[test]
fn what_kubectl_reads_is_read() {
    for (text, expected) in [
        // Flow collections and quoted text end at any indentation.
        ("a:\n  b: [\n  \"x\",\n  \"y\"\n  ]\nc: 1\n", r#"1{a:2{b:2["x","y"]},c:1}"#),
        ("a:\n- b: [\nx, z\n]\n- {\nc: 1\n}\n", r#"1{a:2[2{b:2["x","z"]},5{c:1}]}"#),
        ("a:\n  b: [\"sh\", \"-c\", \"\n  text\n  \"]\n", r#"1{a:2{b:2["sh","-c"," text "]}}"#),
        (
            "a:\n  b: 'one\n  two'\n  c: \"three\nfour\n\n\tfive\"\n",
            r#"1{a:2{b:"one two",c:"three four\nfive"}}"#,
        ),
        ("a: [\"b c\n  d\te\", 'f\n\tg\th', \"é\tü\\x41z\"]\n", r#"1{a:1["b c d\te","f g\th","é\tüAz"]}"#),
        ("a: {b: one\n two, \"c\":3, d}\n", r#"1{a:1{b:"one two",c:3,d:null}}"#),
        ("a: [-, b, -f, -]\n", r#"1{a:1["-","b","-f","-"]}"#),
        ("a: [b,]#c\nd: 'e'#f\ng: |#h\n  i\n", r#"1{a:1["b"],d:"e",g:"i\n"}"#),
        ("a: [b, # c\n d,# e\n]\n", r#"1{a:1["b","d"]}"#),
        ("a: [b?c, http://d:1/?e=f#g, ::/0]\n", r#"1{a:1["b?c","http://d:1/?e=f#g","::/0"]}"#),
        // Byte order marks stand where a file began.
        ("\u{feff}a: 1\n---\n\u{feff}b: 2\n", "1{a:1} 3{b:2}"),
        ("\u{feff}\u{feff}# x\na: 1\n\u{feff}---\n\u{feff}# y\nb: 2\n", "2{a:1} 5{b:2}"),
        ("a: \u{feff}b\n", r#"1{a:"\u{feff}b"}"#),
        // Tabs wherever they do not indent.
        ("a:\tb\t\nc:\t\n  d: e\tf\t# g\nh\t: {\"i\":\tj}\t\n", r#"1{a:"b",c:3{d:"e\tf"},h:4{i:"j"}}"#),
        ("---\n{\n\t\"a\":\t[\n\t\t1,\n\t\t2\n\t]\n}\n", "2{a:3[1,2]}"),
        // And where they indent what has no indentation: the lines of flow collections.
        ("a:\n  b: [\n\t1,\n \t2, # [\n\t\"x\ty\"\n\t]\nc: 3\n", r#"1{a:2{b:2[1,2,"x\ty"]},c:3}"#),
        ("a:\n- {\n\tb: \"[\",\n\t'c': '[',\n\td: x\t(}\n- e\n", r#"1{a:2[2{b:"[",c:"[",d:"x\t("},"e"]}"#),
        ("a: [&x [\n\t1],\n\t*x ]\n", "1{a:1[1[1],1[1]]}"),
        ("a:\n  b: [[\r\n\t1],\r\n\r\n\t{}]\r\n", "1{a:2{b:2[2[1],5{}]}}"),
        ("a: it's [\n  {\n  \"x\nb: [\n\t1]\n", r#"1{a:"it's [ { \"x",b:4[1]}"#),
        ("a: |\n  [\nb: !x [\n\t1]\n", r#"1{a:"[\n",b:3[1]}"#),
        // An escape that YAML does not have.
        (r#"a: ["\'", "it\'s\\\'\"", '\', \']"#, r#"1{a:1["'","it's\\'\"","\\","\\'"]}"#),
        ("\"\\'a\": x \"\\'y\"\nb: \"c\n  \\'d\"\n", r#"1{'a:"x \"\\'y\"",b:"c 'd"}"#),
        // Keys are what they stand for.
        (
            "y: 1\nOff: 2\n0x1F: 3\n1_000: 4\n1.10: 5\n'2.0': 6\n\"no\": 7\n1.2.3: 8\n",
            "1{true:1,false:2,31:3,1000:4,1.1:5,2.0:6,no:7,1.2.3:8}",
        ),
        // Lines end in several ways.
        ("a: 1\r\nb: |\r\n  x\r\n  y\r\n", r#"1{a:1,b:"x\ny\n"}"#),
        ("a: 1\rb:\r- c\r", r#"1{a:1,b:3["c"]}"#),
        ("%YAML 1.1\n---\na: 1\n...\n%YAML 1.2\n%TAG ! tag:x,1:\n---\nb: !c 2\n", r#"3{a:1} 8{b:"2"}"#),
        ("--- # x\na: 1\n--- \nb: 2\n---\t\nc: 3\n...\n...\nd: 4\n", "2{a:1} 4{b:2} 6{c:3} 9{d:4}"),
        (" a: 1\n b:\n - 2\n", "1{a:1,b:3[2]}"),
        ("a: |+\n  x\n\n\nb: >-\n  y\n  z\n\n  w\nc: |2\n    v\n", r#"1{a:"x\n\n\n",b:"y z\nw",c:"  v\n"}"#),
        ("? a\n: b\n? 'c\n  d'\n: e\n", r#"1{a:"b",c d:"e"}"#),
        ("a: &x [1]\nb: *x\nc: {<<: {d: 2}, e: 3}\n", "1{a:1[1],b:1[1],c:3{e:3,d:2}}"),
        // JSON, one object after the other.
        ("{\"é\":\"\u{1f980}é\"}{\"b\":\"é\"}", "1{é:\"\u{1f980}é\"} 1{b:\"é\"}"),
        ("{\"a\":1}\n{\"b\":\n[2]}\n\n{\"c\":3}", "1{a:1} 2{b:3[2]} 5{c:3}"),
        (
            "{\"a\":{}}{\"b\":[]} {}null\t{\"c\":null}\n\u{feff}{\"d\":1}",
            "1{a:1{}} 1{b:1[]} 1{} 1{c:null} 2{d:1}",
        ),
        ("\n{\"a\":1}\n---\nb: 2\n---\n{\"c\":3}\n# end\n", "2{a:1} 4{b:2} 6{c:3}"),
        (
            r#"{"a":"\u0061\/\ud83e\udd80\\ud83e\n","b":-1.5,"c":1e3,"d":true}"#,
            "1{a:\"a/\u{1f980}\\\\ud83e\\n\",b:-1.5,c:1000.0,d:true}",
        ),
        // Halves of surrogate pairs.
        (r#"{"a":"\ud800","\uDC00":"\ud800x"}"#, "1{a:\"\u{fffd}\",\u{fffd}:\"\u{fffd}x\"}"),
        (
            r#"{"a":"\ud800\ud83e\udd80\udd80\n","b":"\\ud800\\\ud800"}"#,
            "1{a:\"\u{fffd}\u{1f980}\u{fffd}\\n\",b:\"\\\\ud800\\\\\u{fffd}\"}",
        ),
        // JSON after a kind, YAML all the same.
        ("{a: 1, 'b': \"c\"}\n---\n[1]\n", r#"1{a:1,b:"c"} 3[1]"#),
        ("---\n{\"a\":\"\\ud83e\\udd80\\/\"}\n", "2{a:\"\u{1f980}/\"}"),
    ] {
        let shown = |bytes: &[u8]| documents(bytes).iter().map(show).collect::<Vec<_>>().join(" ");
        assert_eq!(shown(text.as_bytes()), expected, "{text:?}");
        if !text.contains('\u{feff}') {
            assert_eq!(shown(&utf16(text, u16::to_le_bytes)), expected, "UTF-16LE {text:?}");
            assert_eq!(shown(&utf16(text, u16::to_be_bytes)), expected, "UTF-16BE {text:?}");
        }
        let one_by_one =
            documents_of(OneByOne(text.as_bytes())).iter().map(show).collect::<Vec<_>>().join(" ");
        assert_eq!(one_by_one, expected, "byte by byte {text:?}");
    }
    for (bytes, expected) in [
        (&b"# caf\xe9\na: b\n"[..], r#"2{a:"b"}"#),
        (b"a: caf\xe9\n", "1{a:\"caf\u{fffd}\"}"),
        (b"{\"a\":\"\xe9\"}\n", "1{a:\"\u{fffd}\"}"),
    ] {
        assert_eq!(documents(bytes).iter().map(show).collect::<Vec<_>>().join(" "), expected);
    }
}

/// A source that gives a byte at a time, as a slow pipe does.
pub(super) struct OneByOne<'b>(pub(super) &'b [u8]);

impl Read for OneByOne<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(1);
        self.0.read(&mut buffer[..length])
    }
}

#[test]
fn empty_texts_hold_nothing_and_are_no_problem() {
    for text in
        ["", "\n", "# comment\n", "---\n", "---\n...\n", "\u{feff}", "null\n", "--- # a\n---\n", "\r\n"]
    {
        let reading = reading(text);
        assert_eq!((reading.objects, reading.problems), (vec![], vec![]), "{text:?}");
    }
}

#[test]
fn aliases_and_merge_keys_are_resolved() {
    let text = policy_text(
        "podSelector: &web {matchLabels: &labels {a: b, c: d}}\ningress:\n- from:\n  - podSelector: *web\n  \
         - podSelector: {matchLabels: {<<: *labels, a: z}}\n  \
         - podSelector: {matchLabels: {<<: [{e: f, a: x}, *labels]}}",
    );
    let cluster = cluster(&text);
    let policies: Vec<_> = cluster.policies().values().map(super::describe::policy).collect();
    assert_eq!(policies, ["a=b&c=d; ingress [a=b&c=d, a=z&c=d, e=f&a=x&c=d : any]"]);
}

#[test]
fn what_is_no_yaml_is_refused_with_its_line() {
    for (text, expected) in [
        (&b"a: b\n\0"[..], "f:2: a NUL byte: the file is binary, or UTF-16 without a byte order mark"),
        (b"{\"a\":\n\0", "f:2: a NUL byte: the file is binary, or UTF-16 without a byte order mark"),
        (b"\n\na\0:\0", "f:3: a NUL byte: the file is binary, or UTF-16 without a byte order mark"),
        (b"a: 1\n---\n? [x]\n: y\n", "f:3: a key must be a string"),
        (b"a: &a 1\n---\nb: *a\n", "f:3: not valid YAML: while parsing node, found unknown anchor"),
        (b"a: &a [*a]\n", "f:1: the alias names no anchor before it in this document"),
        (
            b"a: 1\nb: {{ .c }}\n",
            "f:2: `b: {{ .c }}` is not filled in: a Helm template: render it: `helm template CHART | podfence … -f -`",
        ),
        (
            b"{{- if .a }}\nb: 1\n",
            "f:1: `{{- if .a }}` is not filled in: a Helm template: render it: `helm template CHART | podfence … -f -`",
        ),
        (
            b"{\"a\": 1,\n\"b\": ${C}}\n",
            "f:2: `\\\"b\\\": ${C}}` is not filled in: a template with `${…}` in it: fill it in (`envsubst`, `oc process`) and give it as `-f -`",
        ),
        // A bracket that opens nothing does not let a tab indent.
        (
            b"a: x [ y\nb:\n\tc: 1\n",
            "f:3: not valid YAML: tabs disallowed within this context (block indentation)",
        ),
        (
            b"a: !x '['\nb: &y \"[\" # [\nc:\n\td: 1\n",
            "f:4: not valid YAML: tabs disallowed within this context (block indentation)",
        ),
        (
            b"a: |\n  [\nb: []\nc:\n\td: 1\n",
            "f:5: not valid YAML: tabs disallowed within this context (block indentation)",
        ),
        (b"<<: x\n", "f:1: `<<` must be followed by an object or a list of objects"),
    ] {
        assert_refused(text, expected);
    }
    for text in
        ["a: [1", "a: b: c", "{\"a\": 1} x", "\tb: 1\na: 1", "a: 'x", "a: *nobody", "---\n%", "&a &b c"]
    {
        let problem = parse(text.as_bytes(), "f").expect_err(text);
        let expected = if text.starts_with("{\"") { "not valid JSON: " } else { "not valid YAML: " };
        assert!(problem.message.starts_with(expected), "{text}: {problem}");
    }
}

#[test]
fn bombs_and_abysses_end_early() {
    let laughs =
        repeated(1..12, |i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(",")));
    let many = "f:5: aliases that stand for too many values";
    assert_refused(format!("a0: &a0 [x,x,x,x,x,x,x,x,x]\n{laughs}").as_bytes(), many);

    let text = "x".repeat(1 << 16);
    let texts = format!("a: &a {text}\nb: [{}]\n", vec!["*a"; 1000].join(","));
    assert_refused(texts.as_bytes(), &many.replace("f:5", "f:2"));

    let merges = repeated(1..40, |i| format!("a{i}: &a{i} {{<<: [*a{0}, *a{0}], k{i}: 1}}\n", i - 1));
    let reading = reading(&format!("apiVersion: v1\nkind: X\na0: &a0 {{k: 1}}\n{merges}"));
    assert_eq!(reading.unread.len(), 1);

    let values = "more than 20000 values in one object, or in a list of items that name no kind";
    assert_refused(format!("- [{}]\n", vec!["[]"; 1 << 15].join(",")).as_bytes(), &format!("f:1: {values}"));
    let json = format!("{{\"a\":\n[{}]}}", vec!["[]"; 1 << 15].join(","));
    assert_refused(json.as_bytes(), &format!("f:2: {values}"));
    let text = "more than 1 MiB in one object, or in a list of items that name no kind";
    for endless in ["x", "# x", "'x"] {
        let source = endless.as_bytes().chain(io::repeat(b'y'));
        assert_eq!(parse(source, "f").unwrap_err().to_string(), format!("f:1: {text}"), "{endless}");
    }
    assert!(parse(b"{\"x".chain(io::repeat(b'y')), "f").is_err());

    let deep = "nested deeper than 100 levels";
    assert_refused(("[\n".repeat(150) + &"]".repeat(150)).as_bytes(), &format!("f:101: {deep}"));
    assert_refused(("{a:\n".repeat(150) + &"}".repeat(150)).as_bytes(), &format!("f:101: {deep}"));
    assert_refused("[".repeat(1 << 16).as_bytes(), "f:1: not valid YAML: recursion limit exceeded");
    let json = "{\"a\":\n".repeat(150) + &"}".repeat(150);
    assert_refused(json.as_bytes(), &format!("f:101: {deep}"));
    assert_refused("- ".repeat(1 << 16).as_bytes(), &format!("f:1: {deep}"));
    assert_refused("? ".repeat(1 << 16).as_bytes(), &format!("f:1: {deep}"));
    let stacked = repeated(1..200, |i| format!("a{i}: &a{i} [*a{}]\n", i - 1));
    assert_refused(format!("a0: &a0 []\n{stacked}").as_bytes(), &format!("f:100: {deep}"));
}

/// A file may be of any size: the limits are those of one object.
#[test]
fn lists_and_files_are_longer_than_what_one_object_may_hold() {
    let pod = "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"p\"},\"spec\":[[],[],[],[],[],[],[],[],[],[]]}";
    let count = 3_000;
    let bare = &pod.replace("\"apiVersion\":\"v1\",\"kind\":\"Pod\",", "");
    for (item, start, separator, end) in [
        (pod, "{\"kind\":\"List\",\"apiVersion\":\"v1\",\"items\":[", ",", "]}"),
        (bare, "{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"items\":[", ",", "]}"),
        (pod, "apiVersion: v1\nitems:\n- ", "\n- ", "\nkind: List\n"),
        (bare, "apiVersion: v1\nkind: PodList\nitems:\n- ", "\n- ", "\n"),
        (pod, "", "\n", "\n"),
        (pod, "---\n", "\n---\n", "\n"),
    ] {
        let text = start.to_owned() + &vec![item; count].join(separator) + end;
        assert_eq!(reading(&text).objects.len(), count, "{start}");
    }
}

#[test]
fn json_escapes_are_those_of_json() {
    for (escaped, label) in [
        (r"\u0061\/", "a/"),
        (r"\ud83e\udd80", "\u{1f980}"),
        (r"\\ud83e\\udd80", r"\ud83e\udd80"),
        (r"\u00e9\ud83e\udd80", "é\u{1f980}"),
    ] {
        let text = format!(
            "\n \n\t{{\"apiVersion\": \"v1\", \"kind\": \"Pod\",\n\"metadata\": {{\"name\": \"p\", \
             \"labels\": {{\"a\": \"{escaped}\"}}}}}}"
        );
        let reading = reading(&text);
        let Resource::Workload(workload) = &reading.objects[0].resource else { panic!() };
        assert_eq!((workload.pod.labels["a"].as_str(), reading.objects[0].origin.line), (label, 3), "{text}");
    }
}

#[test]
fn the_first_thousand_problems_are_enough() {
    let reading = reading(&policy_text(&format!("ingress: [{}]", vec!["1"; 3000].join(","))));
    assert_eq!(reading.problems.len(), 1001);
    let last = reading.problems.last().unwrap();
    assert_eq!(last.to_string(), "f:6: there is more to say than the 1000 messages before this one");
}

#[test]
fn large_objects_are_read_in_linear_time() {
    let start = Instant::now();
    let labels = repeated(0..8_000, |i| format!("  k{i}: v\n"));
    let reading = reading(&format!("apiVersion: v1\nkind: ConfigMap\ndata:\n{labels}"));
    assert_eq!(reading.unread.len(), 1);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
