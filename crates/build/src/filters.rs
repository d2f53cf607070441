//! Which of the things that are kept of builds are meant.

use crate::error::{Error, Result};
use crate::output::Kept;

/// Filters as BuildKit reads them: those of one are all to match, those of several any.
#[derive(Debug)]
pub struct Filters(Vec<Vec<Condition>>);

#[derive(Debug)]
struct Condition {
    field: String,
    operator: Operator,
    value: String,
}

#[derive(Debug)]
enum Operator {
    Is,
    IsNot,
    Contains,
    Present,
}

impl Filters {
    pub fn parse(texts: &[String]) -> Result<Self> {
        let mut all = Vec::new();
        for text in texts.iter().filter(|text| !text.is_empty()) {
            all.push(text.split(',').map(Condition::parse).collect::<Result<_>>()?);
        }
        Ok(Self(all))
    }

    /// None at all: everything matches.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }

    pub fn match_(&self, kept: &Kept) -> bool {
        let one = |conditions: &Vec<Condition>| conditions.iter().all(|condition| condition.matches(kept));
        self.0.is_empty() || self.0.iter().any(one)
    }
}

impl Condition {
    fn parse(text: &str) -> Result<Self> {
        let parts = [
            ("==", Operator::Is),
            ("!=", Operator::IsNot),
            ("~=", Operator::Contains),
            ("=", Operator::Is),
        ];
        for (sign, operator) in parts {
            if let Some((field, value)) = text.split_once(sign) {
                return Self::known(field, operator, value);
            }
        }
        Self::known(text, Operator::Present, "")
    }

    fn known(field: &str, operator: Operator, value: &str) -> Result<Self> {
        const FIELDS: [&str; 8] = [
            "id",
            "parents",
            "description",
            "inuse",
            "mutable",
            "immutable",
            "type",
            "shared",
        ];
        let field = match field.trim() {
            "parent" => "parents",
            field => field,
        };
        if !FIELDS.contains(&field) && field != "private" {
            let known = FIELDS.join(", ");
            return Err(Error::invalid(format!(
                "invalid filter {field}: {known} and private are known"
            )));
        }
        Ok(Self {
            field: field.to_owned(),
            operator,
            value: value.trim_matches('"').to_owned(),
        })
    }

    fn matches(&self, kept: &Kept) -> bool {
        let is_mutable = kept.is_mutable();
        let word = |yes: bool| if yes { "true" } else { "false" };
        let value: &str = match self.field.as_str() {
            "id" => &kept.id,
            "description" => &kept.description,
            "type" => &kept.kind,
            "inuse" => word(kept.in_use),
            "shared" => word(kept.shared),
            "private" => word(!kept.shared),
            "mutable" => word(is_mutable),
            "immutable" => word(!is_mutable),
            _ => {
                return match self.operator {
                    Operator::Present => !kept.parents.is_empty(),
                    Operator::IsNot => !kept.parents.contains(&self.value),
                    Operator::Is | Operator::Contains => kept.parents.contains(&self.value),
                };
            }
        };
        match self.operator {
            Operator::Is => value == self.value,
            Operator::IsNot => value != self.value,
            Operator::Contains => value.contains(&self.value),
            Operator::Present => !matches!(value, "" | "false"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_as_buildkit_reads_them() {
        let kept = Kept {
            id: "abc".into(),
            kind: "regular".into(),
            description: "[2/3] RUN make".into(),
            parents: vec!["def".into()],
            ..Kept::default()
        };
        for (text, expected) in [
            ("id==abc", true),
            ("id=abc", true),
            ("id!=abc", false),
            ("description~=make", true),
            ("type==regular,inuse==false", true),
            ("type==regular,inuse", false),
            ("parent==def", true),
            ("shared", false),
            ("private", true),
            ("mutable==true", false),
        ] {
            let filters = Filters::parse(&[text.to_owned()]).unwrap();
            assert_eq!(filters.match_(&kept), expected, "{text}");
        }
        assert!(Filters::parse(&["nonsense=1".to_owned()]).is_err());
        let any = Filters::parse(&["id=x".to_owned(), "id=abc".to_owned()]).unwrap();
        assert!(any.match_(&kept));
    }
}
