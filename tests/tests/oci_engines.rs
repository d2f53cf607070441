//! The real engines with Ferry in place of runc: dockerd and its builder, podman, containerd. Each test has a machine of
//! its own and proves by the container's state, which Ferry and runc write in different shapes, that Ferry ran it.

mod builds;
mod compare;
mod containerd;
mod docker;
mod podman;
mod remapped;
mod terminals;
