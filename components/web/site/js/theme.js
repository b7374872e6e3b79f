// Runs before the first paint, so that nobody who chose dark is shown light for a moment.
try {
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage may be forbidden; then the system's choice counts.
}
