// The theme that the reader chose on any page before, or else the system's.
document.documentElement.dataset.theme = (() => { try { return localStorage.getItem("gti-diag-theme"); } catch { return null; } })() || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
