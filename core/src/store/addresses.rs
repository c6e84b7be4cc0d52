//! Rows by the address that they spell, for questions about addresses.

use std::net::IpAddr;
use std::ops::Bound;

use imbl::OrdSet;

/// Keys of rows by address. Texts that spell no address are left out; `::ffff:192.0.2.1` is 192.0.2.1.
#[derive(Clone, Debug)]
pub(super) struct Addresses<K: Ord>(OrdSet<(IpAddr, K)>);

impl<K: Ord + Clone> Default for Addresses<K> {
    fn default() -> Self {
        Addresses(OrdSet::new())
    }
}

impl<K: Ord + Clone + Default> Addresses<K> {
    pub(super) fn insert(&mut self, address: &str, key: &K) {
        if let Some(address) = read(address) {
            self.0.insert((address, key.clone()));
        }
    }

    pub(super) fn remove(&mut self, address: &str, key: &K) {
        if let Some(address) = read(address) {
            self.0.remove(&(address, key.clone()));
        }
    }

    /// The first key with an address.
    pub(super) fn first(&self, address: IpAddr) -> Option<&K> {
        let address = address.to_canonical();
        // No key is less than the default one, which is empty.
        let from = Bound::Included((address, K::default()));
        let (has, key) = self.0.range((from, Bound::Unbounded)).next()?;
        (*has == address).then_some(key)
    }
}

fn read(address: &str) -> Option<IpAddr> {
    address.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Text;

    #[test]
    fn the_first_key_with_an_address_is_found() {
        let mut addresses = Addresses::<Text>::default();
        for (address, key) in [
            ("10.0.0.2", "b"),
            ("10.0.0.1", "c"),
            ("::ffff:10.0.0.2", "a"),
            ("host.example", "d"),
            ("::1", "e"),
        ] {
            addresses.insert(address, &key.into());
        }
        let first = |addresses: &Addresses<Text>, text: &str| {
            addresses.first(text.parse().expect("an address")).map(ToString::to_string)
        };
        assert_eq!(first(&addresses, "10.0.0.2").as_deref(), Some("a"));
        assert_eq!(first(&addresses, "::ffff:10.0.0.1").as_deref(), Some("c"));
        assert_eq!(first(&addresses, "::1").as_deref(), Some("e"));
        assert_eq!(first(&addresses, "10.0.0.0"), None);
        addresses.remove("10.0.0.2", &"a".into());
        assert_eq!(first(&addresses, "10.0.0.2").as_deref(), Some("b"));
    }
}
