//! Part of the list, as whoever asks is answered.

use super::notice::{self, Seen};
use crate::codec::json;
use crate::message::Topic;

/// Part of the list, in the order of ids, others before users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// How many there are in all.
    pub count: u64,
    /// `None` where they are counted only.
    pub members: Option<Vec<Seen>>,
    /// Not all are on the list.
    pub truncated: bool,
    /// There are more behind the last of these.
    pub more: bool,
}

impl Page {
    /// What the next part is asked for with: behind the last one of this.
    #[must_use]
    pub fn next(&self) -> Option<String> {
        self.members.as_ref().filter(|_| self.more)?.last().map(|member| member.id.write())
    }

    /// As it is answered: `{"topic","count","members":[{"id","name","since","connections"}],"truncated","next"}`.
    #[must_use]
    pub fn to_json(&self, topic: &Topic) -> Vec<u8> {
        let mut out = Vec::from(b"{\"topic\":");
        json::write_string(topic.as_str(), &mut out);
        out.extend_from_slice(b",\"count\":");
        json::write_number(self.count, &mut out);
        if let Some(members) = &self.members {
            out.extend_from_slice(b",\"members\":");
            notice::write_list(members, Seen::write_json, &mut out);
        }
        if self.truncated {
            out.extend_from_slice(b",\"truncated\":true");
        }
        if let Some(next) = self.next() {
            out.extend_from_slice(b",\"next\":");
            json::write_string(&next, &mut out);
        }
        out.extend_from_slice(b"}\n");
        out
    }
}
