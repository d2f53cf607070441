//! Keys as Go reads them: in any case, and the last of two that are equal counts.
//!
//! [`AnyCase`] is between serde_json and the structs, which are asked for their fields' names; it copies nothing and keeps
//! the places of errors. Two equal keys are an error there, and only then is the text read as a [`Tree`] first.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::{Map, Value};

/// The limit is Go's uint64 and the oci-spec crate's i64. The kernel counts pages, of which both maxima are more than there
/// can be, and takes either for no limit.
const UNSIGNED: &str = "LinuxHugepageLimit";

type Names = &'static [&'static str];

/// Reads what a deserializer gives, with the names of fields in any case.
pub(super) struct AnyCase<D> {
    pub inner: D,
    /// A number is unsigned where the field is signed.
    unsigned: bool,
}

impl<D> AnyCase<D> {
    pub fn new(inner: D) -> Self {
        Self { inner, unsigned: false }
    }

    fn reader<V>(&self, visitor: V) -> Reader<V> {
        Reader {
            visitor,
            names: &[],
            unsigned: self.unsigned,
        }
    }
}

macro_rules! pass_on {
    ($($method:ident($($argument:ident: $kind:ty),*))*) => {
        $(fn $method<V: Visitor<'de>>(self, $($argument: $kind,)* visitor: V) -> Result<V::Value, D::Error> {
            let reader = self.reader(visitor);
            self.inner.$method($($argument,)* reader)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for AnyCase<D> {
    type Error = D::Error;

    pass_on! {
        deserialize_any() deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64()
        deserialize_i128() deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128()
        deserialize_f32() deserialize_f64() deserialize_char() deserialize_str() deserialize_string()
        deserialize_bytes() deserialize_byte_buf() deserialize_option() deserialize_unit() deserialize_seq()
        deserialize_map() deserialize_identifier() deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str) deserialize_tuple(length: usize)
        deserialize_tuple_struct(name: &'static str, length: usize)
        deserialize_enum(name: &'static str, variants: Names)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        names: Names,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let reader = Reader {
            visitor,
            names,
            unsigned: name == UNSIGNED,
        };
        self.inner.deserialize_struct(name, names, reader)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_ignored_any(visitor)
    }
}

/// A visitor that gets everything as it is, but for keys; also itself the access to a map or a list.
struct Reader<V> {
    visitor: V,
    /// Of a struct's fields.
    names: Names,
    unsigned: bool,
}

macro_rules! hand_over {
    ($($method:ident($kind:ty))*) => {
        $(fn $method<E: Error>(self, value: $kind) -> Result<V::Value, E> {
            self.visitor.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Reader<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    hand_over! {
        visit_bool(bool) visit_f64(f64) visit_str(&str) visit_borrowed_str(&'de str) visit_string(String)
        visit_bytes(&[u8]) visit_borrowed_bytes(&'de [u8]) visit_byte_buf(Vec<u8>)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        let most = if self.unsigned {
            i64::MAX.unsigned_abs()
        } else {
            u64::MAX
        };
        self.visitor.visit_u64(value.min(most))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        if self.unsigned && value < 0 {
            return Err(E::invalid_value(Unexpected::Signed(value), &"a number of bytes"));
        }
        self.visitor.visit_i64(value)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let unsigned = self.unsigned;
        self.visitor.visit_some(AnyCase { inner, unsigned })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(AnyCase::new(inner))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_seq(Members {
            inner: list,
            names: &[],
            unsigned: false,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Members {
            inner: map,
            names: self.names,
            unsigned: self.unsigned,
        })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(data)
    }
}

/// The members of a map or a list.
struct Members<A> {
    inner: A,
    names: Names,
    unsigned: bool,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Members<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(Member { seed, unsigned: false })
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        match self.names {
            // No struct: the keys are the user's.
            [] => self.inner.next_key_seed(seed),
            names => self.inner.next_key_seed(Key { inner: seed, names }),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let unsigned = self.unsigned;
        self.inner.next_value_seed(Member { seed, unsigned })
    }
}

struct Member<S> {
    seed: S,
    unsigned: bool,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Member<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let unsigned = self.unsigned;
        self.seed.deserialize(AnyCase { inner, unsigned })
    }
}

/// A key of a struct, on its way: the seed, the deserializer, and the visitor of its text.
struct Key<T> {
    inner: T,
    names: Names,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Key<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let names = self.names;
        self.inner.deserialize(Key { inner, names })
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Key<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, inner: V) -> Result<V::Value, D::Error> {
        let names = self.names;
        self.inner.deserialize_any(Key { inner, names })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Key<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    /// A name that is exactly this goes first.
    fn visit_str<E: Error>(self, key: &str) -> Result<V::Value, E> {
        let same = || self.names.iter().find(|name| name.eq_ignore_ascii_case(key));
        if self.names.contains(&key) {
            return self.inner.visit_str(key);
        }
        let name = same().copied();
        self.inner.visit_str(name.unwrap_or(key))
    }
}

/// A text in which equal keys are one: the last value, and of objects the members of both.
pub(super) struct Tree(pub Value);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Grow)
    }
}

struct Grow;

macro_rules! leaf {
    ($($method:ident($kind:ty))*) => {
        $(fn $method<E: Error>(self, value: $kind) -> Result<Tree, E> {
            Ok(Tree(value.into()))
        })*
    };
}

impl<'de> Visitor<'de> for Grow {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    leaf! { visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_f64(f64) visit_str(&str) }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut values = Vec::new();
        while let Some(Tree(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Tree(Value::Array(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut members = Map::new();
        while let Some((key, Tree(value))) = map.next_entry::<String, Tree>()? {
            add(&mut members, key, value);
        }
        Ok(Tree(Value::Object(members)))
    }
}

fn add(members: &mut Map<String, Value>, key: String, value: Value) {
    match (members.get_mut(&key), value) {
        (Some(Value::Object(first)), Value::Object(second)) => {
            for (key, value) in second {
                add(first, key, value);
            }
        }
        (_, value) => drop(members.insert(key, value)),
    }
}
