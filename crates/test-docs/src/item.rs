//! Reads an enum's or a struct's documentation from its source, in the form that rustfmt gives it.

use anyhow::{Context, Result, ensure};

/// An enum or a struct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The variants of an enum.
    pub variants: Vec<Variant>,
    /// The named fields of a struct.
    pub fields: Vec<Field>,
}

/// A variant of an enum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// The paragraphs of its documentation, without line breaks.
    pub paragraphs: Vec<String>,
    /// Its named fields.
    pub fields: Vec<Field>,
    /// The type it wraps, when it is a tuple variant.
    pub wraps: Option<String>,
}

/// A field of a variant or struct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its documentation.
    pub doc: String,
    /// Whether its type is an `Option`.
    pub is_optional: bool,
}

impl Item {
    /// Reads `heading` (`enum Event`, `struct Body`) from the Rust source `source`.
    ///
    /// # Errors
    /// When the source has no such item, or when a variant or field has no documentation.
    pub fn read(source: &str, heading: &str) -> Result<Self> {
        let begin = format!("pub {heading} {{\n");
        let (_, rest) = source.split_once(&begin).with_context(|| format!("no {heading}"))?;
        let (body, _) = rest.split_once("\n}\n").with_context(|| format!("{heading} does not end"))?;
        let is_enum = heading.starts_with("enum ");
        let mut item = Self { variants: Vec::new(), fields: Vec::new() };
        let mut doc: Vec<String> = Vec::new();
        for line in body.lines() {
            let indentation = line.len() - line.trim_start().len();
            let line = line.trim();
            if let Some(text) = line.strip_prefix("///") {
                doc.push(text.trim().to_owned());
                continue;
            }
            if line.is_empty() || line.starts_with("#[") || line.starts_with("//") || line.starts_with('}') {
                continue;
            }
            if is_enum && indentation == 4 {
                let name = line.trim_end_matches([',', '{', ' ']);
                let (name, wraps) = match name.split_once('(') {
                    Some((name, wraps)) => (name, Some(wraps.trim_end_matches(')').to_owned())),
                    None => (name.split(' ').next().unwrap_or_default(), None),
                };
                ensure!(!doc.is_empty(), "{heading}::{name} has no documentation");
                let paragraphs = paragraphs(&std::mem::take(&mut doc));
                item.variants.push(Variant { name: name.to_owned(), paragraphs, fields: Vec::new(), wraps });
            } else if let Some((name, kind)) = line.split_once(": ") {
                let name = name.trim_start_matches("pub ").to_owned();
                let doc = paragraphs(&std::mem::take(&mut doc)).join(" ");
                ensure!(!doc.is_empty(), "{heading}: {name} has no documentation");
                let field = Field { name, doc, is_optional: kind.starts_with("Option<") };
                match item.variants.last_mut() {
                    Some(variant) => variant.fields.push(field),
                    None => item.fields.push(field),
                }
            }
        }
        Ok(item)
    }
}

impl Variant {
    /// The name in `snake_case`, as serde spells it.
    #[must_use]
    pub fn snake_case(&self) -> String {
        let mut text = String::new();
        for (at, letter) in self.name.char_indices() {
            if letter.is_uppercase() && at > 0 {
                text.push('_');
            }
            text.extend(letter.to_lowercase());
        }
        text
    }
}

/// Joins the lines of a documentation to paragraphs. Links to code become code.
fn paragraphs(lines: &[String]) -> Vec<String> {
    let paragraphs = lines.split(|line| line.is_empty()).filter(|lines| !lines.is_empty());
    paragraphs.map(|lines| lines.join(" ").replace("[`", "`").replace("`]", "`")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
/// Not this one.
pub enum Events {
}

pub enum Event {
    /// It began
    /// [`Early`].
    ///
    /// Recorded.
    #[serde(rename_all = \"snake_case\")]
    WasOpened {
        /// The writer.
        writer: String,
        // A remark.
        #[serde(default)]
        /// The process.
        instance: Option<String>,
    },
    /// It ended.
    Closed,

    /// An exchange.
    Exchanged(Exchange),
    /// A number.
    Numbered = 3,
}

pub struct Exchange {
    /// The session.
    pub session: [u8; 32],
}
";

    #[test]
    fn variants_and_fields_are_read_with_their_documentation() {
        let event = Item::read(SOURCE, "enum Event").unwrap();
        let names: Vec<_> = event.variants.iter().map(Variant::snake_case).collect();
        assert_eq!(names, ["was_opened", "closed", "exchanged", "numbered"]);
        assert_eq!(event.variants[0].paragraphs, ["It began `Early`.", "Recorded."]);
        let fields: Vec<_> = event.variants[0].fields.iter().map(|f| (&*f.name, f.is_optional)).collect();
        assert_eq!(fields, [("writer", false), ("instance", true)]);
        assert_eq!(event.variants[2].wraps.as_deref(), Some("Exchange"));
        assert_eq!(event.variants[3].paragraphs, ["A number."]);
        let exchange = Item::read(SOURCE, "struct Exchange").unwrap();
        assert_eq!(exchange.fields[0].doc, "The session.");
    }

    #[test]
    fn what_is_missing_is_named() {
        for heading in ["enum Other", "struct Event"] {
            assert!(Item::read(SOURCE, heading).is_err(), "{heading}");
        }
        let undocumented = SOURCE.replace("    /// It ended.\n", "");
        assert!(Item::read(&undocumented, "enum Event").is_err());
    }
}
