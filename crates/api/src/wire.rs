//! How Go's `encoding/json` reads and writes a struct, for serde.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::json::Tree;

/// Declares structs whose every field takes `null` and absence for its default value, as Go's zero values do.
/// `flatten name: Type` embeds another struct's keys at that place.
macro_rules! wire {
    ($( $(#[$meta:meta])* pub struct $name:ident { $($fields:tt)* } )+) => {$(
        crate::wire::shape! { [$(#[$meta])*] $name { $($fields)* } }
        crate::wire::plain!($name);
    )+};
}
pub(crate) use wire;

macro_rules! shape {
    ([$(#[$meta:meta])*] $name:ident { $( $(#[$attr:meta])* pub $field:ident: $type:ty, )* }) => {
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        $(#[$meta])*
        #[serde(default)]
        pub struct $name {
            $( $(#[$attr])* #[serde(deserialize_with = "crate::wire::or_default")] pub $field: $type, )*
        }
    };
    ([$(#[$meta:meta])*] $name:ident {
        $( $(#[$attr:meta])* pub $field:ident: $type:ty, )*
        flatten $inner:ident: $embedded:ty,
        $( $(#[$more:meta])* pub $after:ident: $other:ty, )*
    }) => {
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
        $(#[$meta])*
        pub struct $name {
            $( $(#[$attr])* pub $field: $type, )*
            #[serde(flatten)]
            pub $inner: $embedded,
            $( $(#[$more])* pub $after: $other, )*
        }

        const _: () = {
            #[derive(Default, serde::Deserialize)]
            $(#[$meta])*
            #[serde(default)]
            struct Own {
                $( $(#[$attr])* #[serde(deserialize_with = "crate::wire::or_default")] $field: $type, )*
                $( $(#[$more])* #[serde(deserialize_with = "crate::wire::or_default")] $after: $other, )*
            }

            impl<'de> serde::Deserialize<'de> for $name {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let (own, $inner): (Own, _) = crate::wire::both(stringify!($name), deserializer)?;
                    Ok(Self { $( $field: own.$field, )* $inner, $( $after: own.$after, )* })
                }
            }
        };
    };
}
pub(crate) use shape;

/// Two structs whose keys are in one object. Serde's `flatten` would not let a deserializer know the names of the fields.
pub(crate) fn both<'de, A, B, D>(name: &'static str, deserializer: D) -> Result<(A, B), D::Error>
where
    A: DeserializeOwned,
    B: DeserializeOwned,
    D: Deserializer<'de>,
{
    struct Both<A, B>(&'static str, PhantomData<(A, B)>);
    impl<'de, A: DeserializeOwned, B: DeserializeOwned> Visitor<'de> for Both<A, B> {
        type Value = (A, B);
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "struct {}", self.0)
        }
        fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<(A, B), M::Error> {
            let tree = Tree::deserialize(MapAccessDeserializer::new(map))?;
            let both = A::deserialize(&tree).and_then(|a| Ok((a, B::deserialize(&tree)?)));
            both.map_err(de::Error::custom)
        }
    }
    deserializer.deserialize_map(Both(name, PhantomData))
}

/// How a field's type reads `null`: as its zero value, at every depth. Lists and maps take it for an element, too.
pub(crate) trait Wire: Sized {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// For `deserialize_with`.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Wire>(deserializer: D) -> Result<T, D::Error> {
    T::read(deserializer)
}

struct Element<T>(T);

impl<'de, T: Wire> Deserialize<'de> for Element<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::read(deserializer).map(Self)
    }
}

macro_rules! plain {
    ($($type:ty),+) => {$(
        impl crate::wire::Wire for $type {
            fn read<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(<Option<$type> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
            }
        }
    )+};
}
pub(crate) use plain;

plain!(
    bool,
    i64,
    u16,
    u32,
    u64,
    String,
    Words,
    Empty,
    crate::Timestamp,
    crate::ApiVersion,
    serde_json::Value
);

impl<T: Wire> Wire for Option<T> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<Element<T>>::deserialize(deserializer)?.map(|element| element.0))
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Option::<Vec<Element<T>>>::deserialize(deserializer)?.unwrap_or_default();
        Ok(list.into_iter().map(|element| element.0).collect())
    }
}

/// Go fills an array from the front and drops what is too much.
impl<T: Wire + Default, const N: usize> Wire for [T; N] {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut list = Vec::<T>::read(deserializer)?.into_iter();
        Ok(std::array::from_fn(|_| list.next().unwrap_or_default()))
    }
}

impl<T: Wire> Wire for BTreeMap<String, T> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = Option::<BTreeMap<String, Element<T>>>::deserialize(deserializer)?.unwrap_or_default();
        Ok(map.into_iter().map(|(key, element)| (key, element.0)).collect())
    }
}

/// Go's `omitempty`.
pub(crate) fn omit<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The value of a set kept as a map: `{"80/tcp": {}}`. Reads `null` too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Empty;

impl Serialize for Empty {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_map(Some(0))?.end()
    }
}

impl<'de> Deserialize<'de> for Empty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EmptyVisitor;
        impl<'de> Visitor<'de> for EmptyVisitor {
            type Value = Empty;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or null")
            }
            fn visit_unit<E>(self) -> Result<Empty, E> {
                Ok(Empty)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Empty, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Empty)
            }
        }
        deserializer.deserialize_any(EmptyVisitor)
    }
}

/// A list of words that old clients send as one string (`"Cmd": "sh"`), written as a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(pub Vec<String>);

impl Deref for Words {
    type Target = Vec<String>;
    fn deref(&self) -> &Vec<String> {
        &self.0
    }
}

impl From<Vec<String>> for Words {
    fn from(words: Vec<String>) -> Self {
        Self(words)
    }
}

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordsVisitor;
        impl<'de> Visitor<'de> for WordsVisitor {
            type Value = Words;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of strings or one string")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<Words, E> {
                Ok(Words(vec![word.to_owned()]))
            }
            fn visit_unit<E>(self) -> Result<Words, E> {
                Ok(Words::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Words, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = seq.next_element::<Option<String>>()? {
                    words.push(word.unwrap_or_default());
                }
                Ok(Words(words))
            }
        }
        deserializer.deserialize_any(WordsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_a_list_or_a_single_string() {
        let read = |json| serde_json::from_str::<Words>(json).unwrap().0;
        assert_eq!(read(r#""sh -c""#), ["sh -c"]);
        assert_eq!(read(r#"["a",null]"#), ["a", ""]);
        assert!(serde_json::from_str::<Words>("5").is_err());
    }

    #[test]
    fn empty_reads_objects_and_null_only() {
        for json in ["{}", "null", r#"{"a":[1]}"#] {
            assert_eq!(serde_json::from_str::<Empty>(json).unwrap(), Empty);
        }
        assert!(serde_json::from_str::<Empty>("true").is_err());
        assert_eq!(serde_json::to_string(&Empty).unwrap(), "{}");
    }
}
