//! Plain side and cipher side, IEC 104 frame classes, key policy, graded fallback.
