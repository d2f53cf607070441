//! Keys as Go reads them: in any case, and the last of two that are equal counts.
//!
//! [`AnyCase`] is between serde_json and the structs, which are asked for their fields' names; it copies nothing and keeps
//! the places of errors. Two equal keys are an error there, and only then is the text read as a [`Tree`] first.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::tree::Tree;

/// Parses one JSON value.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    match once(text) {
        Err(error) if is_duplicate(&error) => T::deserialize(&serde_json::from_slice::<Tree>(text)?),
        done => done,
    }
}

fn once<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = T::deserialize(AnyCase::new(&mut deserializer))?;
    deserializer.end().map(|()| value)
}

/// Of [`AnyCase`], whose text is to be read as a [`Tree`].
pub fn is_duplicate(error: &serde_json::Error) -> bool {
    error.is_data() && error.to_string().starts_with("duplicate field")
}

/// The field that a key means: one that is exactly this goes first.
pub(super) fn field(names: &[&'static str], key: &str) -> Option<&'static str> {
    let exact = names.iter().find(|name| **name == key);
    exact.or_else(|| names.iter().find(|name| is_same(name, key))).copied()
}

/// As `encoding/json` folds: Unicode has two more letters that are an ASCII one in another case.
fn is_same(name: &str, key: &str) -> bool {
    let fold = |letter: char| match letter {
        'ſ' => 's',
        '\u{212a}' => 'k',
        letter => letter.to_ascii_lowercase(),
    };
    name.eq_ignore_ascii_case(key) || (!key.is_ascii() && name.chars().map(fold).eq(key.chars().map(fold)))
}

type Names = &'static [&'static str];

/// Reads what a deserializer gives, with the names of fields in any case.
#[derive(Debug)]
pub struct AnyCase<D> {
    inner: D,
    large: Large,
}

/// Numbers that are Go's uint64 where the field is an i64: what is larger becomes the largest.
#[derive(Clone, Copy, Debug, Default)]
struct Large {
    /// The struct that has such numbers.
    within: Option<&'static str>,
    here: bool,
}

impl Large {
    fn enter(self, name: &str) -> Self {
        let here = self.within == Some(name);
        Self { here, ..self }
    }

    fn leave(self) -> Self {
        Self { here: false, ..self }
    }
}

impl<D> AnyCase<D> {
    pub fn new(inner: D) -> Self {
        let large = Large::default();
        Self { inner, large }
    }

    /// Numbers of the struct `name` are unsigned, and at most what an i64 can be.
    #[must_use]
    pub fn unsigned_in(mut self, name: &'static str) -> Self {
        self.large.within = Some(name);
        self
    }

    fn reader<V>(&self, visitor: V) -> Reader<V> {
        Reader {
            visitor,
            names: &[],
            large: self.large,
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
            large: self.large.enter(name),
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
    large: Large,
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
        let most = if self.large.here {
            i64::MAX.unsigned_abs()
        } else {
            u64::MAX
        };
        self.visitor.visit_u64(value.min(most))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        if self.large.here && value < 0 {
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
        let large = self.large;
        self.visitor.visit_some(AnyCase { inner, large })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let large = self.large.leave();
        self.visitor.visit_newtype_struct(AnyCase { inner, large })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_seq(Members {
            inner: list,
            names: &[],
            large: self.large.leave(),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Members {
            inner: map,
            names: self.names,
            large: self.large,
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
    large: Large,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Members<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let large = self.large;
        self.inner.next_element_seed(Member { seed, large })
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
        let large = self.large;
        self.inner.next_value_seed(Member { seed, large })
    }
}

struct Member<S> {
    seed: S,
    large: Large,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Member<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let large = self.large;
        self.seed.deserialize(AnyCase { inner, large })
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

    fn visit_str<E: Error>(self, key: &str) -> Result<V::Value, E> {
        self.inner.visit_str(field(self.names, key).unwrap_or(key))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::container::{Create, Update};
    use crate::wire::wire;

    wire! {
        #[serde(rename_all = "PascalCase")]
        pub struct Inner {
            pub number: i64,
            #[serde(rename = "number")]
            pub small: i64,
            pub labels: BTreeMap<String, String>,
            pub kiss: String,
        }

        #[serde(rename_all = "PascalCase")]
        pub struct Outer {
            pub name: String,
            pub list: Vec<Inner>,
            flatten inner: Inner,
            pub after: Option<Inner>,
        }
    }

    fn read<T: DeserializeOwned>(text: &str) -> T {
        from_slice(text.as_bytes()).unwrap()
    }

    #[test]
    fn keys_of_structs_are_taken_in_any_case_and_those_of_maps_as_they_are() {
        let outer: Outer = read(
            r#"{"NAME":"a","list":[{"kIsS":"k","LABELS":{"A":"1","a":"2"}}],"kiſS":"b","NUMBER":1,"number":2,"aFTER":{"labels":{"X":"y"}}}"#,
        );
        assert_eq!(
            (
                outer.name.as_str(),
                outer.list[0].kiss.as_str(),
                outer.inner.kiss.as_str()
            ),
            ("a", "k", "b")
        );
        assert_eq!(outer.list[0].labels.len(), 2);
        // A name that is exactly the key goes first.
        assert_eq!((outer.inner.number, outer.inner.small), (1, 2));
        assert_eq!(outer.after.unwrap().labels["X"], "y");
        let create: Create = read(
            r#"{"image":"i","HOSTCONFIG":{"memory":5,"DEVICES":[{"pathonhost":"/d"}],"mounts":[{"TYPE":"bind"}]},"env":["A=1"]}"#,
        );
        let host = create.host_config.unwrap();
        assert_eq!((create.config.image.as_str(), host.resources.memory), ("i", 5));
        assert_eq!(host.resources.devices.unwrap()[0].path_on_host, "/d");
        assert_eq!(host.mounts[0].r#type, "bind");
    }

    #[test]
    fn of_equal_keys_the_last_counts_and_objects_are_one() {
        let outer: Outer = read(
            r#"{"Name":"a","name":"b","List":[{}],"LIST":[],"Labels":{"a":"1","A":"2"},"labels":{"a":"3"},"number":1,"number":2,
                "After":{"Kiss":"k","Number":3},"after":{"NUMBER":4}}"#,
        );
        assert_eq!((outer.name.as_str(), outer.list.len(), outer.inner.small), ("b", 0, 2));
        let labels: Vec<_> = outer
            .inner
            .labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(labels, [("A", "2"), ("a", "3")]);
        let after = outer.after.unwrap();
        assert_eq!((after.kiss.as_str(), after.number), ("k", 4));
        let create: Create = read(r#"{"Image":"a","HostConfig":{"memory":1,"Memory":2},"IMAGE":"b"}"#);
        assert_eq!(
            (
                create.config.image.as_str(),
                create.host_config.unwrap().resources.memory
            ),
            ("b", 2)
        );
    }

    #[test]
    fn errors_are_those_of_the_names_as_they_are_written() {
        for (here, there) in [
            (r#"{"image":5}"#, r#"{"Image":5}"#),
            (r#"{"hostconfig":{"memory":"x"}}"#, r#"{"HostConfig":{"Memory":"x"}}"#),
            (r#"{"restartPOLICY":[]}"#, r#"{"RestartPolicy":[]}"#),
            (r#"{"image":"a"}x"#, r#"{"Image":"a"}x"#),
            (r#"{"image"#, r#"{"Image"#),
        ] {
            let error = |text: &str| {
                from_slice::<Create>(text.as_bytes())
                    .map(drop)
                    .map_err(|error| error.to_string())
            };
            let plain = serde_json::from_slice::<Create>(there.as_bytes())
                .map(drop)
                .map_err(|error| error.to_string());
            assert_eq!(error(here), plain, "{here}");
        }
        let error = from_slice::<Update>(br#"{"Memory":1,"memory":"x"}"#).unwrap_err();
        assert!(error.to_string().starts_with("invalid type: string"), "{error}");
        for depth in ["[", r#"{"Labels":"#, r#"{"a":1,"a":"#] {
            from_slice::<Create>(depth.repeat(100_000).as_bytes()).unwrap_err();
        }
    }

    /// With every key's letters in another case.
    fn turned(value: &Value) -> Value {
        let turn = |letter: char| match letter.is_ascii_uppercase() {
            true => letter.to_ascii_lowercase(),
            false => letter.to_ascii_uppercase(),
        };
        match value {
            Value::Object(members) => members
                .iter()
                .map(|(key, value)| (key.chars().map(turn).collect::<String>(), turned(value)))
                .collect(),
            Value::Array(members) => members.iter().map(turned).collect(),
            value => value.clone(),
        }
    }

    proptest! {
        #[test]
        fn what_has_no_maps_is_the_same_in_any_case(name in ".*", number: i64, kiss in ".*", many in 0_usize..4) {
            let inner = json!({ "Number": number, "Kiss": kiss });
            let outer = json!({ "Name": name, "List": vec![inner.clone(); many], "After": inner, "Kiss": kiss, "Number": number });
            let plain: Outer = serde_json::from_value(outer.clone()).unwrap();
            let mut other: Outer = read(&turned(&outer).to_string());
            // `NUMBER` is the first of two names.
            prop_assert_eq!(other.inner.number, number);
            other.inner.number = plain.inner.number;
            prop_assert_eq!(other, plain);
        }

        #[test]
        fn any_text_is_read_or_an_error(text in "[\\[\\]{}:,\"ab0-9nulI ]{0,60}") {
            let _ = from_slice::<Create>(text.as_bytes());
            let _ = from_slice::<Tree>(text.as_bytes());
        }
    }
}
