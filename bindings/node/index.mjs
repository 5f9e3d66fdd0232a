import attend from './index.js';

export const { AttendError, view, matmul, softmax, attention, merge, selfAttention, convert, rotary, kvAppend,
  promises } = attend;
export const { isa, setIsa, version, threads, setThreads } = attend;
export default attend;
