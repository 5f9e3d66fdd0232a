//! `attend.h` as it stands, written by hand. The crate `attend` is the safe one.
#![allow(non_camel_case_types)]

use std::os::raw::{c_char, c_void};

pub type attend_status = i32;

/// The version of the header this was written from.
pub const ATTEND_VERSION: u32 = 100;

pub const ATTEND_OK: i32 = 0;
pub const ATTEND_NULL_POINTER: i32 = 1;
pub const ATTEND_INVALID_STRUCT_SIZE: i32 = 2;
pub const ATTEND_INVALID_RANK: i32 = 3;
pub const ATTEND_INVALID_DTYPE: i32 = 4;
pub const ATTEND_INVALID_SHAPE: i32 = 5;
pub const ATTEND_INVALID_STRIDE: i32 = 6;
pub const ATTEND_INVALID_VALUE: i32 = 7;
pub const ATTEND_OVERFLOW: i32 = 8;
pub const ATTEND_OVERLAP: i32 = 9;
pub const ATTEND_UNSUPPORTED: i32 = 10;
pub const ATTEND_WORKSPACE_TOO_SMALL: i32 = 11;
pub const ATTEND_OUT_OF_MEMORY: i32 = 12;
pub const ATTEND_UNKNOWN_ISA: i32 = 13;

pub const ATTEND_F32: u32 = 1;
pub const ATTEND_F64: u32 = 2;
pub const ATTEND_BOOL: u32 = 7;

pub const ATTEND_LOG: u32 = 1;
pub const ATTEND_CAUSAL_TOP_LEFT: u32 = 1;
pub const ATTEND_CAUSAL_BOTTOM_RIGHT: u32 = 2;
pub const ATTEND_WINDOW: u32 = 4;

pub const ATTEND_SCORES_SCALED: u32 = 0;
pub const ATTEND_SCORES_SOFTCAPPED: u32 = 1;
pub const ATTEND_SCORES_MASKED: u32 = 2;
pub const ATTEND_SCORES_PROBABILITIES: u32 = 3;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct attend_tensor {
    pub data: *mut c_void,
    pub dtype: u32,
    pub rank: u32,
    pub shape: [i64; 4],
    pub stride: [i64; 4],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct attend_matmul_options {
    pub size: u32,
    pub flags: u32,
    pub threads: i32,
    pub reserved: u32,
    pub workspace: *mut c_void,
    pub workspace_size: u64,
    pub bias: *const attend_tensor,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct attend_softmax_options {
    pub size: u32,
    pub flags: u32,
    pub threads: i32,
    pub reserved: u32,
    pub workspace: *mut c_void,
    pub workspace_size: u64,
    pub scale: f64,
    pub mask: *const attend_tensor,
    pub bias: *const attend_tensor,
    pub lse: *const attend_tensor,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct attend_attention_options {
    pub size: u32,
    pub flags: u32,
    pub threads: i32,
    pub reserved: u32,
    pub workspace: *mut c_void,
    pub workspace_size: u64,
    pub scale: f64,
    pub softcap: f64,
    pub query_offset: i64,
    pub query_offsets: *const i64,
    pub kv_lengths: *const i64,
    pub window_left: i64,
    pub window_right: i64,
    pub mask: *const attend_tensor,
    pub bias: *const attend_tensor,
    pub alibi_slopes: *const attend_tensor,
    pub sinks: *const attend_tensor,
    pub lse: *const attend_tensor,
    pub scores: *const attend_tensor,
    pub scores_stage: u32,
    pub reserved2: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct attend_merge_options {
    pub size: u32,
    pub flags: u32,
    pub threads: i32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct attend_self_attention_weights {
    pub size: u32,
    pub reserved: u32,
    pub w_q: *const attend_tensor,
    pub w_k: *const attend_tensor,
    pub w_v: *const attend_tensor,
    pub b_q: *const attend_tensor,
    pub b_k: *const attend_tensor,
    pub b_v: *const attend_tensor,
    pub w_o: *const attend_tensor,
    pub b_o: *const attend_tensor,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct attend_self_attention_options {
    pub size: u32,
    pub flags: u32,
    pub threads: i32,
    pub reserved: u32,
    pub workspace: *mut c_void,
    pub workspace_size: u64,
}

extern "C" {
    pub fn attend_status_string(status: attend_status) -> *const c_char;
    pub fn attend_status_argument(status: attend_status) -> *const c_char;
    pub fn attend_matmul(
        alpha: f64,
        a: *const attend_tensor,
        b: *const attend_tensor,
        beta: f64,
        c: *const attend_tensor,
        options: *const attend_matmul_options,
    ) -> attend_status;
    pub fn attend_matmul_workspace(
        alpha: f64,
        a: *const attend_tensor,
        b: *const attend_tensor,
        beta: f64,
        c: *const attend_tensor,
        options: *const attend_matmul_options,
        bytes: *mut u64,
    ) -> attend_status;
    pub fn attend_softmax(
        x: *const attend_tensor,
        y: *const attend_tensor,
        options: *const attend_softmax_options,
    ) -> attend_status;
    pub fn attend_softmax_workspace(
        x: *const attend_tensor,
        y: *const attend_tensor,
        options: *const attend_softmax_options,
        bytes: *mut u64,
    ) -> attend_status;
    pub fn attend_attention(
        q: *const attend_tensor,
        k: *const attend_tensor,
        v: *const attend_tensor,
        out: *const attend_tensor,
        options: *const attend_attention_options,
    ) -> attend_status;
    pub fn attend_attention_workspace(
        q: *const attend_tensor,
        k: *const attend_tensor,
        v: *const attend_tensor,
        out: *const attend_tensor,
        options: *const attend_attention_options,
        bytes: *mut u64,
    ) -> attend_status;
    pub fn attend_attention_merge(
        out_a: *const attend_tensor,
        lse_a: *const attend_tensor,
        out_b: *const attend_tensor,
        lse_b: *const attend_tensor,
        options: *const attend_merge_options,
    ) -> attend_status;
    pub fn attend_self_attention(
        x: *const attend_tensor,
        weights: *const attend_self_attention_weights,
        out: *const attend_tensor,
        options: *const attend_self_attention_options,
        attention_options: *const attend_attention_options,
    ) -> attend_status;
    pub fn attend_self_attention_workspace(
        x: *const attend_tensor,
        weights: *const attend_self_attention_weights,
        out: *const attend_tensor,
        options: *const attend_self_attention_options,
        attention_options: *const attend_attention_options,
        bytes: *mut u64,
    ) -> attend_status;
    pub fn attend_version() -> u32;
    pub fn attend_isa() -> *const c_char;
    pub fn attend_isa_name(i: i32) -> *const c_char;
    pub fn attend_set_isa(name: *const c_char) -> attend_status;
    pub fn attend_threads() -> i32;
    pub fn attend_set_threads(threads: i32) -> attend_status;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::size_of;

    #[test]
    fn layout() {
        // What a C compiler says of attend.h on every 64-bit platform.
        assert_eq!(size_of::<attend_tensor>(), 80);
        assert_eq!(size_of::<attend_matmul_options>(), 40);
        assert_eq!(size_of::<attend_softmax_options>(), 64);
        assert_eq!(size_of::<attend_attention_options>(), 144);
        assert_eq!(size_of::<attend_merge_options>(), 16);
        assert_eq!(size_of::<attend_self_attention_weights>(), 72);
        assert_eq!(size_of::<attend_self_attention_options>(), 32);
    }
}
