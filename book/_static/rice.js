// The search index marks Korean terms (book/_ext/korean.py); a page's text does not.
document.addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined") return;
  const summary = Search.makeSearchSummary;
  Search.makeSearchSummary = (text, terms, anchor) =>
    summary(text, [...terms].map((term) => term.replace(/__$/, "")), anchor);
});
