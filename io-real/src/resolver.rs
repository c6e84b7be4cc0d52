//! Names of hosts, as the operating system looks them up.

use std::io;
use std::net::IpAddr;

use async_trait::async_trait;

use crate::ports::Resolver;

/// The operating system's resolver.
#[derive(Clone, Copy, Debug)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        // The system's interface wants a port; it means nothing here.
        for address in tokio::net::lookup_host((name, 0)).await? {
            if !addresses.contains(&address.ip()) {
                addresses.push(address.ip());
            }
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn a_literal_address_is_its_own_name() {
        let found = SystemResolver.resolve("127.0.0.7").await.expect("a literal");
        assert_eq!(found, [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7))]);
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_is_an_error() {
        assert!(SystemResolver.resolve("no such host").await.is_err());
    }
}
