//! A policy guards pods, not addresses: what a pod cannot do whatever it writes into its frames, and what it can do
//! as before.

mod agent;
mod churn;
mod claims;
mod elsewhere;
mod legitimate;
mod link_scope;
mod scene;
mod shapes;
mod spoofing;
mod tunnels;
