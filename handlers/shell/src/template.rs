//! An argv with places for what callers say.

use std::collections::BTreeMap;

use plugd_core::is_legal_name;

use crate::settings::Rendered;

/// What follows it cannot be an option, by the convention of POSIX (utility syntax guideline 10).
const END_OF_OPTIONS: &str = "--";

/// A piece of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// What the operator wrote.
    Text(String),
    /// The parameter of this name.
    Value(String),
}

/// The arguments of a command as the operator wrote them. Only `{NAME}` with a legal name is a place for a value; every
/// other brace is a brace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Vec<Part>>);

impl Template {
    pub(crate) fn parse(argv: &[String]) -> Template {
        Template(argv.iter().map(|argument| parts(argument)).collect())
    }

    /// The pieces of each argument.
    pub(crate) fn arguments(&self) -> &[Vec<Part>] {
        &self.0
    }

    /// The names of all values, as often as they stand there.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flatten().filter_map(|part| match part {
            Part::Value(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// Puts values in their places. Each stays within its one argument, whatever is in it.
    ///
    /// # Errors
    ///
    /// The name of a value that would become an option: it begins with `-`, its argument begins with it, and no `--`
    /// stands before.
    pub(crate) fn render(&self, values: &BTreeMap<String, Rendered>) -> Result<Vec<String>, &str> {
        let mut argv = Vec::with_capacity(self.0.len());
        let mut options_ended = false;
        for parts in &self.0 {
            let mut argument = String::new();
            let mut is_left_out = false;
            for part in parts {
                match part {
                    Part::Text(text) => argument += text,
                    Part::Value(name) => match values.get(name) {
                        Some(Rendered::Text { text, may_be_option, .. }) => {
                            if argument.is_empty() && text.starts_with('-') && !may_be_option && !options_ended {
                                return Err(name);
                            }
                            argument += text;
                        }
                        Some(Rendered::LeftOut) | None => is_left_out = true,
                    },
                }
            }
            if !is_left_out {
                options_ended |= argument == END_OF_OPTIONS && parts == &[Part::Text(END_OF_OPTIONS.to_owned())];
                argv.push(argument);
            }
        }
        Ok(argv)
    }
}

fn parts(mut text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    while let Some(open) = text.find('{') {
        let (before, rest) = text.split_at(open);
        literal += before;
        match rest[1..].split_once('}').filter(|(name, _)| is_legal_name(name)) {
            Some((name, after)) => {
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Value(name.to_owned()));
                text = after;
            }
            None => {
                literal.push('{');
                text = &rest[1..];
            }
        }
    }
    literal += text;
    if !literal.is_empty() || parts.is_empty() {
        parts.push(Part::Text(literal));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(argv: &[&str], values: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let template = Template::parse(&argv.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let value = |text: &str| Rendered::Text { text: text.to_owned(), may_be_option: false, is_secret: false };
        let values = values.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect();
        template.render(&values).map_err(str::to_owned)
    }

    #[test]
    fn a_value_stays_in_its_argument() {
        let nasty = "a b;$(id)`id`\n'\"*{b}";
        assert_eq!(render(&["x", "{a}"], &[("a", nasty)]), Ok(vec!["x".to_owned(), nasty.to_owned()]));
        assert_eq!(render(&["x", "--a={a}/{b}"], &[("a", ""), ("b", "2")]), Ok(vec!["x".into(), "--a=/2".into()]));
    }

    #[test]
    fn braces_that_hold_no_name_are_braces() {
        for text in ["{print $1}", "{{.Names}}", "{", "}", "{}", "a{B}c", ""] {
            assert_eq!(render(&["x", text], &[]), Ok(vec!["x".into(), text.into()]));
        }
    }

    #[test]
    fn a_value_becomes_no_option() {
        assert_eq!(render(&["x", "{a}"], &[("a", "-rf")]), Err("a".to_owned()));
        assert_eq!(render(&["x", "{a}{b}"], &[("a", ""), ("b", "-rf")]), Err("b".to_owned()));
        assert_eq!(render(&["x", "{c}", "{a}"], &[("c", "--"), ("a", "-rf")]), Err("c".to_owned()));
        assert!(render(&["x", "--", "{a}"], &[("a", "-rf")]).is_ok());
        assert!(render(&["x", "--file={a}"], &[("a", "-rf")]).is_ok());
    }
}
