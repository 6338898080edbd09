/* The tables of rows: filter by text and by kind. */
"use strict";
for (const section of document.querySelectorAll("section.scan")) {
  const filter = section.querySelector(".scan-filter");
  if (!filter) continue;
  const kind = section.querySelector(".scan-kind"), status = section.querySelector(".found");
  const rows = [...section.querySelectorAll(".scan-rows tbody tr")].map((row) => [row, row.textContent.toLowerCase(), row.dataset.kinds.split(" ")]);
  const show = () => {
    const query = filter.value.trim().toLowerCase();
    let count = 0;
    for (const [row, text, kinds] of rows) {
      const kept = text.includes(query) && (!kind.value || kinds.includes(kind.value));
      row.hidden = !kept;
      count += kept;
    }
    status.textContent = `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
  };
  filter.addEventListener("input", show);
  kind.addEventListener("input", show);
}
