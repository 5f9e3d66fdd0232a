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
pub const ATTEND_BF16: u32 = 3;
pub const ATTEND_F16: u32 = 4;
pub const ATTEND_I8: u32 = 5;
pub const ATTEND_U8: u32 = 6;
pub const ATTEND_BOOL: u32 = 7;
pub const ATTEND_I32: u32 = 8;
pub const ATTEND_F8E4M3: u32 = 9;

pub const ATTEND_NATIVE_DOT: u32 = 0x10000;

pub const ATTEND_LOG: u32 = 1;
pub const ATTEND_ACCUMULATE: u32 = 2;
pub const ATTEND_COMPUTE_SCALE: u32 = 1;
pub const ATTEND_ROTARY_INTERLEAVED: u32 = 1;
pub const ATTEND_ROTARY_INVERSE: u32 = 2;
pub const ATTEND_COMPUTE_K_SCALE: u32 = 4;
pub const ATTEND_COMPUTE_V_SCALE: u32 = 8;
pub const ATTEND_CAUSAL_TOP_LEFT: u32 = 1;
pub const ATTEND_CAUSAL_BOTTOM_RIGHT: u32 = 2;
pub const ATTEND_WINDOW: u32 = 4;
pub const ATTEND_PARTIAL: u32 = 8;
pub const ATTEND_CONTINUE: u32 = 16;

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

pub type attend_task = unsafe extern "C" fn(argument: *mut c_void, i: i32);

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct attend_executor {
    pub size: u32,
    pub workers: i32,
    pub run: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            tasks: i32,
            task: attend_task,
            argument: *mut c_void,
        ),
    >,
    pub context: *mut c_void,
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
    pub message: *mut c_char,
    pub message_size: u64,
    pub executor: *const attend_executor,
    pub bias: *const attend_tensor,
    pub a_scale: *const attend_tensor,
    pub b_scale: *const attend_tensor,
    pub a_zero: *const attend_tensor,
    pub b_zero: *const attend_tensor,
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
    pub message: *mut c_char,
    pub message_size: u64,
    pub executor: *const attend_executor,
    pub scale: f64,
    pub mask: *const attend_tensor,
    pub bias: *const attend_tensor,
    pub lse: *const attend_tensor,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct attend_softmax_backward_options {
    pub size: u32,
    pub flags: u32,
    pub threads: i32,
    pub reserved: u32,
    pub workspace: *mut c_void,
    pub workspace_size: u64,
    pub message: *mut c_char,
    pub message_size: u64,
    pub executor: *const attend_executor,
    pub scale: f64,
    pub d_lse: *const attend_tensor,
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
    pub message: *mut c_char,
    pub message_size: u64,
    pub executor: *const attend_executor,
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
    pub k_scale: *const attend_tensor,
    pub v_scale: *const attend_tensor,
    pub kv_first: *const i64,
    pub sequences: i64,
    pub query_starts: *const i64,
    pub key_starts: *const i64,
    pub pages: *const attend_tensor,
    pub key_offset: i64,
    pub state: *const attend_tensor,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct attend_attention_backward_options {
    pub size: u32,
    pub flags: u32,
    pub threads: i32,
    pub reserved: u32,
    pub workspace: *mut c_void,
    pub workspace_size: u64,
    pub message: *mut c_char,
    pub message_size: u64,
    pub executor: *const attend_executor,
    pub d_lse: *const attend_tensor,
    pub d_bias: *const attend_tensor,
    pub d_sinks: *const attend_tensor,
    pub delta: *const attend_tensor,
    pub d_q_state: *const attend_tensor,
    pub d_k_state: *const attend_tensor,
    pub d_v_state: *const attend_tensor,
    pub total_keys: *const i64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct attend_merge_options {
    pub size: u32,
    pub flags: u32,
    pub threads: i32,
    pub reserved: u32,
    pub workspace: *mut c_void,
    pub workspace_size: u64,
    pub message: *mut c_char,
    pub message_size: u64,
    pub executor: *const attend_executor,
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
    pub message: *mut c_char,
    pub message_size: u64,
    pub executor: *const attend_executor,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct attend_convert_options {
    pub size: u32,
    pub flags: u32,
    pub threads: i32,
    pub reserved: u32,
    pub workspace: *mut c_void,
    pub workspace_size: u64,
    pub message: *mut c_char,
    pub message_size: u64,
    pub executor: *const attend_executor,
    pub scale: *const attend_tensor,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct attend_rotary_options {
    pub size: u32,
    pub flags: u32,
    pub threads: i32,
    pub reserved: u32,
    pub workspace: *mut c_void,
    pub workspace_size: u64,
    pub message: *mut c_char,
    pub message_size: u64,
    pub executor: *const attend_executor,
    pub rotary_dims: i64,
    pub positions: *const i64,
    pub offsets: *const i64,
    pub sequences: i64,
    pub starts: *const i64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct attend_kv_append_options {
    pub size: u32,
    pub flags: u32,
    pub threads: i32,
    pub reserved: u32,
    pub workspace: *mut c_void,
    pub workspace_size: u64,
    pub message: *mut c_char,
    pub message_size: u64,
    pub executor: *const attend_executor,
    pub sequences: i64,
    pub starts: *const i64,
    pub offsets: *const i64,
    pub slots: *const i64,
    pub pages: *const attend_tensor,
    pub k_scale: *const attend_tensor,
    pub v_scale: *const attend_tensor,
    pub cos: *const attend_tensor,
    pub sin: *const attend_tensor,
    pub rotary_dims: i64,
    pub positions: *const i64,
}

macro_rules! init {
    ($($name:ident)*) => {$(
        impl $name {
            /// ATTEND_..._INIT: all zero but for `size`.
            pub fn init() -> Self {
                // Safety: of integers, floats, raw pointers and optional functions all are valid as zeros.
                let mut zero: Self = unsafe { std::mem::zeroed() };
                zero.size = std::mem::size_of::<Self>() as u32;
                zero
            }
        }
    )*};
}
init! {
    attend_executor
    attend_matmul_options
    attend_softmax_options
    attend_softmax_backward_options
    attend_attention_options
    attend_attention_backward_options
    attend_merge_options
    attend_self_attention_options
    attend_self_attention_weights
    attend_convert_options
    attend_rotary_options
    attend_kv_append_options
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
    pub fn attend_softmax_backward(
        y: *const attend_tensor,
        d_y: *const attend_tensor,
        d_x: *const attend_tensor,
        options: *const attend_softmax_backward_options,
    ) -> attend_status;
    pub fn attend_softmax_backward_workspace(
        y: *const attend_tensor,
        d_y: *const attend_tensor,
        d_x: *const attend_tensor,
        options: *const attend_softmax_backward_options,
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
    pub fn attend_attention_backward(
        q: *const attend_tensor,
        k: *const attend_tensor,
        v: *const attend_tensor,
        out: *const attend_tensor,
        d_out: *const attend_tensor,
        d_q: *const attend_tensor,
        d_k: *const attend_tensor,
        d_v: *const attend_tensor,
        options: *const attend_attention_backward_options,
        attention_options: *const attend_attention_options,
    ) -> attend_status;
    pub fn attend_attention_backward_workspace(
        q: *const attend_tensor,
        k: *const attend_tensor,
        v: *const attend_tensor,
        out: *const attend_tensor,
        d_out: *const attend_tensor,
        d_q: *const attend_tensor,
        d_k: *const attend_tensor,
        d_v: *const attend_tensor,
        options: *const attend_attention_backward_options,
        attention_options: *const attend_attention_options,
        bytes: *mut u64,
    ) -> attend_status;
    pub fn attend_attention_merge(
        out_a: *const attend_tensor,
        lse_a: *const attend_tensor,
        out_b: *const attend_tensor,
        lse_b: *const attend_tensor,
        options: *const attend_merge_options,
    ) -> attend_status;
    pub fn attend_attention_merge_workspace(
        out_a: *const attend_tensor,
        lse_a: *const attend_tensor,
        out_b: *const attend_tensor,
        lse_b: *const attend_tensor,
        options: *const attend_merge_options,
        bytes: *mut u64,
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
    pub fn attend_convert(
        x: *const attend_tensor,
        y: *const attend_tensor,
        options: *const attend_convert_options,
    ) -> attend_status;
    pub fn attend_convert_workspace(
        x: *const attend_tensor,
        y: *const attend_tensor,
        options: *const attend_convert_options,
        bytes: *mut u64,
    ) -> attend_status;
    pub fn attend_rotary(
        x: *const attend_tensor,
        cos: *const attend_tensor,
        sin: *const attend_tensor,
        y: *const attend_tensor,
        options: *const attend_rotary_options,
    ) -> attend_status;
    pub fn attend_rotary_workspace(
        x: *const attend_tensor,
        cos: *const attend_tensor,
        sin: *const attend_tensor,
        y: *const attend_tensor,
        options: *const attend_rotary_options,
        bytes: *mut u64,
    ) -> attend_status;
    pub fn attend_kv_append(
        k: *const attend_tensor,
        v: *const attend_tensor,
        k_cache: *const attend_tensor,
        v_cache: *const attend_tensor,
        options: *const attend_kv_append_options,
    ) -> attend_status;
    pub fn attend_kv_append_workspace(
        k: *const attend_tensor,
        v: *const attend_tensor,
        k_cache: *const attend_tensor,
        v_cache: *const attend_tensor,
        options: *const attend_kv_append_options,
        bytes: *mut u64,
    ) -> attend_status;
    pub fn attend_version() -> u32;
    pub fn attend_contract() -> u32;
    pub fn attend_isa() -> *const c_char;
    pub fn attend_isa_name(i: i32) -> *const c_char;
    pub fn attend_set_isa(name: *const c_char) -> attend_status;
    pub fn attend_threads() -> i32;
    pub fn attend_set_threads(threads: i32) -> attend_status;
    pub fn attend_set_executor(executor: *const attend_executor) -> attend_status;
}
