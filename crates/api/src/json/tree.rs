//! A JSON value in which equal keys are one, as after Go has read it: the last value, and of objects the members of both.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{Deserialize, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde::ser::{Serialize, Serializer};
use serde_json::{Error, Value};

use super::keys::field;

#[derive(Clone, Debug)]
pub enum Tree {
    Leaf(Value),
    List(Vec<Tree>),
    Object(Members),
}

/// Each key once.
#[derive(Clone, Debug, Default)]
pub struct Members {
    /// With when the key came last.
    by_key: BTreeMap<String, (usize, Tree)>,
    came: usize,
}

impl Members {
    /// Adds a member, or merges it with the one of this key.
    fn add(&mut self, key: String, value: Tree) {
        self.came += 1;
        let merged = match (self.by_key.remove(&key), value) {
            (Some((_, Tree::Object(mut first))), Tree::Object(second)) => {
                for (key, value) in second.in_order() {
                    first.add(key.to_owned(), value.clone());
                }
                Tree::Object(first)
            }
            (_, value) => value,
        };
        self.by_key.insert(key, (self.came, merged));
    }

    fn in_order(&self) -> impl Iterator<Item = (&str, &Tree)> {
        let mut members: Vec<_> = self.by_key.iter().collect();
        members.sort_by_key(|(_, (came, _))| *came);
        members.into_iter().map(|(key, (_, value))| (key.as_str(), value))
    }

    /// Those that a struct with these fields has, by the fields' names.
    fn fields(&self, names: &[&'static str]) -> Self {
        let mut fields = Self::default();
        for (key, value) in self.in_order() {
            if let Some(name) = field(names, key) {
                fields.add(name.to_owned(), value.clone());
            }
        }
        fields
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Grow)
    }
}

struct Grow;

macro_rules! leaf {
    ($($method:ident($kind:ty))*) => {
        $(fn $method<E: serde::de::Error>(self, value: $kind) -> Result<Tree, E> {
            Ok(Tree::Leaf(value.into()))
        })*
    };
}

impl<'de> Visitor<'de> for Grow {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    leaf! { visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_f64(f64) visit_str(&str) }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Tree::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut members = Members::default();
        while let Some((key, value)) = map.next_entry()? {
            members.add(key, value);
        }
        Ok(Tree::Object(members))
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Leaf(value) => value.serialize(serializer),
            Self::List(values) => values.serialize(serializer),
            Self::Object(members) => serializer.collect_map(members.in_order()),
        }
    }
}

impl<'de> IntoDeserializer<'de, Error> for &Tree {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Errors have no place.
impl<'de> Deserializer<'de> for &Tree {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Tree::Leaf(value) => value.clone().deserialize_any(visitor),
            Tree::List(values) => SeqDeserializer::new(values.iter()).deserialize_any(visitor),
            Tree::Object(members) => MapDeserializer::new(members.in_order()).deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self {
            Tree::Leaf(value) => value.clone().deserialize_struct(name, names, visitor),
            Tree::List(_) => self.deserialize_any(visitor),
            Tree::Object(members) => Tree::Object(members.fields(names)).deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Tree::Leaf(Value::Null) => visitor.visit_none(),
            some => visitor.visit_some(some),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self {
            Tree::Leaf(Value::String(variant)) => {
                StrDeserializer::<Error>::new(variant).deserialize_enum(name, variants, visitor)
            }
            _ => Err(Error::custom(format!("invalid type: expected one of {variants:?}"))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}
