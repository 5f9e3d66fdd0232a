import attend from './index.js';

export const { AttendError, view, matmul, softmax, attention, merge, selfAttention, promises } = attend;
export const { isa, setIsa, version, threads, setThreads } = attend;
export default attend;
