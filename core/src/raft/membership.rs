//! Changing the group, one server at a time (dissertation, sections 4.1 and 4.2).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::effect::{ChangeError, Effect};
use super::types::{Member, Membership, Payload};
use super::{Raft, State};
use crate::Text;
use crate::cx::Cx;
use crate::ids::{LogIndex, ServerId};
use crate::marks::{self, Mark};
use crate::planted::{Bug, planted};

/// A change of one member. Two groups that differ by one such change share a voter in any two quorums.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MembershipChange {
    /// A server begins to receive the log, without a vote.
    AddNonVoter {
        /// Its identity.
        id: ServerId,
        /// `host:port` of its RPC listener.
        address: Text,
    },
    /// A non-voter gets a vote. Wait until it has caught up, or commits wait for it.
    Promote {
        /// Which one.
        id: ServerId,
    },
    /// A voter loses its vote.
    Demote {
        /// Which one.
        id: ServerId,
    },
    /// A server leaves. If it leads, it steps down once that is committed.
    Remove {
        /// Which one.
        id: ServerId,
    },
    /// A server is reached elsewhere.
    SetAddress {
        /// Which one.
        id: ServerId,
        /// `host:port` of its RPC listener.
        address: Text,
    },
}

impl Membership {
    /// Members with a vote.
    pub fn voters(&self) -> impl Iterator<Item = ServerId> {
        self.servers.iter().filter(|(_, member)| member.voter).map(|(id, _)| *id)
    }

    /// Whether this server is a member with a vote.
    #[must_use]
    pub fn is_voter(&self, id: ServerId) -> bool {
        self.servers.get(&id).is_some_and(|member| member.voter)
    }

    /// The only voter, if there is exactly one.
    #[must_use]
    pub fn sole_voter(&self) -> Option<ServerId> {
        let mut voters = self.voters();
        voters.next().filter(|_| voters.next().is_none())
    }

    /// Whether more than half of the voters are among these.
    #[must_use]
    pub fn is_quorum(&self, servers: &BTreeSet<ServerId>) -> bool {
        let (all, present) = self
            .voters()
            .fold((0, 0), |(all, present), voter| (all + 1, present + usize::from(servers.contains(&voter))));
        present * 2 > all
    }

    /// The highest value that more than half of the voters have reached; `None` without voters.
    #[must_use]
    pub fn quorum_value<T: Ord + Copy>(&self, value: impl Fn(ServerId) -> T) -> Option<T> {
        let mut values: Vec<T> = self.voters().map(value).collect();
        values.sort_unstable_by(|a, b| b.cmp(a));
        values.get(values.len() / 2).copied()
    }

    /// The members after a change.
    ///
    /// # Errors
    /// If the change makes no sense for these members.
    pub fn with(&self, change: MembershipChange) -> Result<Membership, ChangeError> {
        let mut servers = self.servers.clone();
        let mut member = |id: &ServerId| -> Result<Member, ChangeError> {
            servers.remove(id).ok_or(ChangeError::UnknownMember)
        };
        let (id, changed) = match change {
            MembershipChange::AddNonVoter { id, address } => {
                if self.servers.contains_key(&id) {
                    return Err(ChangeError::NoChange);
                }
                (id, Some(Member { address, voter: false }))
            }
            MembershipChange::Promote { id } => (id, Some(Member { voter: true, ..member(&id)? })),
            MembershipChange::Demote { id } => (id, Some(Member { voter: false, ..member(&id)? })),
            MembershipChange::Remove { id } => {
                member(&id)?;
                (id, None)
            }
            MembershipChange::SetAddress { id, address } => (id, Some(Member { address, ..member(&id)? })),
        };
        servers.extend(changed.map(|member| (id, member)));
        let after = Membership { servers };
        if after == *self {
            return Err(ChangeError::NoChange);
        }
        if after.voters().next().is_none() {
            return Err(ChangeError::LastVoter);
        }
        Ok(after)
    }
}

impl Raft {
    /// Proposes to change the group. The change is in force in this server's log at once, and final once the returned
    /// index is committed in the present term.
    ///
    /// # Errors
    /// If this server does not lead, has not committed an entry of its own term (without that, two leaders could
    /// change the group past each other), the former change is not committed, or the change makes no sense.
    pub fn propose_membership(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        change: MembershipChange,
    ) -> Result<LogIndex, ChangeError> {
        self.may_propose()?;
        if !self.ready() && !planted(Bug::ChangeBeforeReady) {
            return Err(ChangeError::NotReady);
        }
        if self.log.membership_index() > self.commit && !planted(Bug::ChangeWhileOpen) {
            marks::hit(Mark::ChangeRefusedWhileOpen);
            return Err(ChangeError::InProgress);
        }
        if let (MembershipChange::Promote { id }, State::Leader(lead)) = (&change, &self.state)
            && lead.peers.get(id).is_some_and(|peer| peer.matched == LogIndex(0))
        {
            return Err(ChangeError::Behind);
        }
        let after = self.log.membership().with(change)?;
        let last = self.log.last().index;
        self.append(Payload::Membership(after));
        self.sync_peers(cx, last);
        self.feed_all();
        self.advance(cx);
        self.finish(cx);
        Ok(last.next())
    }
}
