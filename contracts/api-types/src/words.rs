//! One way to write a closed set of words.

/// Declares a closed set of words: an enum whose members are read and written as the words given, with `ALL`, `as_str`
/// and `Display`.
///
/// The derives are the caller's, so that each crate names only those whose crates it has. One of serde's must be among
/// them, since every member carries a `#[serde(rename)]`; `Clone` and `Copy` too, since `as_str` takes its value.
///
/// ```
/// api_types::words! {
///     /// What is served.
///     #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
///     Drink {
///         /// Black.
///         Tea = "tea",
///         /// With or without milk.
///         Coffee = "coffee",
///     }
/// }
///
/// assert_eq!(Drink::ALL, [Drink::Tea, Drink::Coffee]);
/// assert_eq!(Drink::Tea.to_string(), "tea");
/// assert_eq!(serde_json::from_str::<Drink>("\"coffee\"").unwrap(), Drink::Coffee);
/// ```
#[macro_export]
// `tt`: utoipa does not see a `literal` fragment in an attribute and would document the members' names.
macro_rules! words {
    ($(#[$attribute:meta])* $name:ident { $($(#[$member_attribute:meta])* $member:ident = $word:tt),+ $(,)? }) => {
        $(#[$attribute])*
        pub enum $name {
            $($(#[$member_attribute])* #[serde(rename = $word)] $member),+
        }

        impl $name {
            /// Every member, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$member),+];

            /// The word, as it is on the wire, in files, in logs and in metrics labels.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$member => $word),+
                }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

/// [`words!`](crate::words!) with what every word of the interface derives.
macro_rules! wire_words {
    ($(#[$attribute:meta])* $name:ident { $($members:tt)+ }) => {
        $crate::words! {
            $(#[$attribute])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
            #[derive(serde::Serialize, serde::Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
            $name { $($members)+ }
        }
    };
}
pub(crate) use wire_words;
