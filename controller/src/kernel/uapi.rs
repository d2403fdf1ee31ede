//! Numbers of the kernel's interface: those that the crate `libc` has, of the width that they have in a
//! message, and those that it does not have: attribute types of `linux/netfilter/nf_tables.h` and
//! `nfnetlink.h`, and nft's numbers for data types.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "libc has every constant as c_int; these are small or meant as 32 bits"
)]

use nftnl::nftnl_sys::libc;

macro_rules! of_libc {
    ($($width:ty { $($name:ident)* })*) => {
        $($(pub(super) const $name: $width = libc::$name as $width;)*)*
    };
}

of_libc! {
    u8 {
        AF_UNSPEC IPPROTO_ICMPV6 IPPROTO_SCTP IPPROTO_TCP IPPROTO_UDP NFPROTO_INET NFPROTO_IPV4 NFPROTO_IPV6
        NFPROTO_NETDEV
    }
    u16 {
        NFNL_MSG_BATCH_BEGIN NFNL_MSG_BATCH_END NFNL_SUBSYS_NFTABLES
        NLM_F_ACK NLM_F_APPEND NLM_F_CREATE NLM_F_DUMP NLM_F_DUMP_INTR NLM_F_EXCL NLM_F_REQUEST
    }
    u32 {
        NF_ACCEPT NF_DROP NF_INET_FORWARD NF_INET_LOCAL_IN NF_INET_LOCAL_OUT NFNLGRP_NFTABLES
        NFT_BYTEORDER_HTON NFT_CMP_EQ NFT_CMP_GTE NFT_CMP_LTE NFT_CMP_NEQ NFT_CT_STATE
        NFT_GOTO NFT_JUMP NFT_RETURN NFT_META_IIFNAME NFT_META_IIFTYPE NFT_META_L4PROTO NFT_META_NFPROTO NFT_META_PROTOCOL
        NFT_PAYLOAD_LL_HEADER NFT_PAYLOAD_NETWORK_HEADER NFT_PAYLOAD_TRANSPORT_HEADER
        NFT_REG32_00 NFT_REG_1 NFT_REG_VERDICT
    }
    usize {
        IFNAMSIZ
    }
}

macro_rules! messages {
    ($($name:ident)*) => {
        $(pub(super) const $name: u16 = NFNL_SUBSYS_NFTABLES << 8 | libc::$name as u16;)*
    };
}

// With the subsystem, as they stand in `nlmsg_type`.
messages! {
    NFT_MSG_GETCHAIN NFT_MSG_GETGEN NFT_MSG_GETRULE NFT_MSG_GETSET NFT_MSG_GETSETELEM NFT_MSG_GETTABLE
    NFT_MSG_NEWGEN NFT_MSG_NEWTABLE
}

pub(super) const NFNL_BATCH_GENID: u16 = 1;

/// In every message but those of the generation, attribute 1 is the name of the table.
pub(super) const NFTA_ANY_TABLE: u16 = 1;

pub(super) const NFTA_GEN_ID: u16 = 1;

pub(super) const NFTA_TABLE_FLAGS: u16 = 2;
pub(super) const NFT_TABLE_F_DORMANT: u32 = 1;
/// Only the socket that has set this flag can change the table; with the socket goes the table, (Linux 5.12)
pub(super) const NFT_TABLE_F_OWNER: u32 = 2;
/// unless it has this flag: then it stays, and another socket may set the flag `owner` (6.9).
pub(super) const NFT_TABLE_F_PERSIST: u32 = 4;

pub(super) const NFTA_CHAIN_NAME: u16 = 3;
pub(super) const NFTA_CHAIN_HOOK: u16 = 4;
pub(super) const NFTA_CHAIN_POLICY: u16 = 5;
pub(super) const NFTA_CHAIN_TYPE: u16 = 7;
pub(super) const NFTA_CHAIN_FLAGS: u16 = 10;
pub(super) const NFT_CHAIN_BASE: u32 = 1;
pub(super) const NFT_CHAIN_BINDING: u32 = 4;

pub(super) const NFTA_HOOK_HOOKNUM: u16 = 1;
pub(super) const NFTA_HOOK_PRIORITY: u16 = 2;
pub(super) const NFTA_HOOK_DEV: u16 = 3;
pub(super) const NFTA_HOOK_DEVS: u16 = 4;
/// Of the family `netdev`.
pub(super) const NF_NETDEV_INGRESS: u32 = 0;
pub(super) const NF_NETDEV_EGRESS: u32 = 1;

pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_HANDLE: u16 = 3;
pub(super) const NFTA_RULE_EXPRESSIONS: u16 = 4;
pub(super) const NFTA_RULE_USERDATA: u16 = 7;

pub(super) const NFTA_EXPR_NAME: u16 = 1;
pub(super) const NFTA_EXPR_DATA: u16 = 2;

pub(super) const NFTA_SET_NAME: u16 = 2;
pub(super) const NFTA_SET_FLAGS: u16 = 3;
pub(super) const NFTA_SET_KEY_TYPE: u16 = 4;
pub(super) const NFTA_SET_DATA_TYPE: u16 = 6;
pub(super) const NFTA_SET_DESC: u16 = 9;
pub(super) const NFTA_SET_TIMEOUT: u16 = 11;
pub(super) const NFTA_SET_GC_INTERVAL: u16 = 12;
pub(super) const NFTA_SET_EXPR: u16 = 17;
pub(super) const NFTA_SET_EXPRESSIONS: u16 = 18;
pub(super) const NFTA_SET_DESC_SIZE: u16 = 1;

pub(super) const NFT_SET_ANONYMOUS: u32 = 1;
pub(super) const NFT_SET_INTERVAL: u32 = 4;
pub(super) const NFT_SET_MAP: u32 = 8;
pub(super) const NFT_SET_TIMEOUT: u32 = 0x10;
pub(super) const NFT_SET_EVAL: u32 = 0x20;
pub(super) const NFT_SET_CONCAT: u32 = 0x80;

pub(super) const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub(super) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;

pub(super) const NFTA_SET_ELEM_KEY: u16 = 1;
pub(super) const NFTA_SET_ELEM_DATA: u16 = 2;
pub(super) const NFTA_SET_ELEM_FLAGS: u16 = 3;
pub(super) const NFTA_SET_ELEM_USERDATA: u16 = 6;
pub(super) const NFTA_SET_ELEM_KEY_END: u16 = 10;
/// What pads 64-bit attributes and says nothing.
pub(super) const NFTA_SET_ELEM_PAD: u16 = 8;
pub(super) const NFT_SET_ELEM_INTERVAL_END: u32 = 1;

pub(super) const NFTA_DATA_VALUE: u16 = 1;
pub(super) const NFTA_DATA_VERDICT: u16 = 2;
pub(super) const NFTA_VERDICT_CODE: u16 = 1;
pub(super) const NFTA_VERDICT_CHAIN: u16 = 2;
/// The data type of verdict maps.
pub(super) const NFT_DATA_VERDICT: u32 = 0xffff_ff00;

pub(super) const NFTA_COUNTER_BYTES: u16 = 1;
pub(super) const NFTA_COUNTER_PACKETS: u16 = 2;

pub(super) const NLMSGERR_ATTR_MSG: u16 = 1;
pub(super) const NLMSGERR_ATTR_OFFS: u16 = 2;

pub(super) const NFT_DYNSET_OP_UPDATE: u32 = 1;
/// The type of Ethernet devices (`linux/if_arp.h`).
pub(super) const ARPHRD_ETHER: u16 = 1;

/// `enum datatypes` of nft, by which it knows how to print a key.
pub(super) const TYPE_IPADDR: u32 = 7;
pub(super) const TYPE_IP6ADDR: u32 = 8;
pub(super) const TYPE_INET_PROTOCOL: u32 = 12;
pub(super) const TYPE_INET_SERVICE: u32 = 13;
/// The bits that each part of a concatenated type takes.
pub(super) const TYPE_BITS: u32 = 6;

/// Sorts of user data of a rule or an element: nft keeps its comments there.
pub(super) const UDATA_COMMENT: u8 = 0;
/// Of an element whose interval has no upper end.
pub(super) const UDATA_ELEMENT_FLAGS: u8 = 1;
pub(super) const UDATA_ELEMENT_OPEN: u32 = 1;
