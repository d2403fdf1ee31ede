//! Packets in packets: a node unwraps what any pod sends to its tunnel.
