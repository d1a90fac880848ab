#include "report.hpp"

#include <deque>

#include "../storage/atomic_file.hpp"
#include "findings.hpp"
#include "summary.hpp"

namespace sara_finetune {
namespace {

constexpr const char* style = R"(
:root { color-scheme: light; }
body { margin: 0; background: #f4f5f7; color: #1f2328; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", Arial, sans-serif; }
main { max-width: 1010px; margin: 0 auto; padding: 32px 24px 64px; background: #fff; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .6rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-top: .8rem; border-top: 1px solid #dfe3e8; }
h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; }
p { margin: .5rem 0; max-width: 85ch; }
.warning { max-width: none; padding: .7rem 1rem; border-left: 5px solid #d55e00; background: #fdf0e6; font-weight: 600; }
.findings { list-style: none; margin: 0; padding: 0; }
.findings li { padding: .6rem 1rem; margin: .5rem 0; border-left: 4px solid #c4cad2; background: #f7f8fa; }
.findings li.headline { border-left-color: #0072b2; background: #eaf3fa; font-size: 1.06rem; }
.findings b { display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e4e6ea; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #9aa0a6; }
td:first-child, th:first-child, table.names td:nth-child(2), table.names th:nth-child(2), table.settings th { text-align: left; }
table.settings td { white-space: normal; overflow-wrap: anywhere; text-align: left; }
.note, figcaption { color: #4b5158; font-size: .93rem; }
figure { margin: 1.6rem 0 2.4rem; }
figure svg { width: 100%; height: auto; border: 1px solid #e4e6ea; border-radius: 6px; }
figcaption { max-width: 95ch; padding-top: .4rem; }
summary { cursor: pointer; font-weight: 600; }
)";

std::string paragraph(const std::string& text, const char* kind = nullptr) {
  return std::string("<p") + (kind != nullptr ? std::string(" class=\"") + kind + "\"" : "") + ">" + escape(text) + "</p>\n";
}

std::string html(const table& cells, const char* kind) {
  std::string text = std::string("<div class=\"wide\"><table class=\"") + kind + "\">\n<thead><tr>";
  for (const std::string& name : cells.header) text += "<th>" + escape(name) + "</th>";
  text += "</tr></thead>\n<tbody>\n";
  for (const auto& row : cells.rows) {
    text += "<tr>";
    for (const std::string& cell : row) text += "<td>" + escape(cell) + "</td>";
    text += "</tr>\n";
  }
  return text + "</tbody>\n</table></div>\n";
}

void flatten(const nlohmann::json& value, const std::string& name, table& into) {
  const auto plain = [](const nlohmann::json& list) {
    for (const nlohmann::json& item : list) {
      if (item.is_structured()) return false;
    }
    return true;
  };
  if (value.is_object() && !value.empty()) {
    for (const auto& [key, item] : value.items()) flatten(item, name.empty() ? key : name + "." + key, into);
  } else if (value.is_array() && !plain(value)) {
    for (std::size_t i = 0; i < value.size(); ++i) flatten(value[i], name + "[" + std::to_string(i) + "]", into);
  } else {
    into.rows.push_back(
        {name, value.is_string() ? value.get<std::string>() : value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)});
  }
}

std::string what_sara_is(const run_results& results) {
  return "A Mixture-of-Experts model sends every token to a few of its experts, and a model that has read mostly " + results.high +
         " sends the same sentence elsewhere when it is said in another language. SARA is a term of the loss that, while fine-tuning, "
         "draws "
         "each sentence's mean routing in a window of middle layers towards that of its translation under the pretrained model (the frozen "
         "anchor). Plain fine-tuning is the same run without that term.";
}

std::vector<std::string> how_to_read() {
  return {
      "Bits a byte is what the model needs to write down the test text: lower is better, and it compares models on one language, never two "
      "languages with each other. It is the result that counts; divergence is what SARA trains, so its fall alone shows only that the term "
      "works.",
      "Differences are taken seed by seed, because the arms of a seed share checkpoint, batch order and tokens. The bracket is the 95 % "
      "t-interval of their mean: where it holds zero, no difference is resolved, which does not say that there is none. Of many such "
      "intervals, one in twenty misses by chance.",
      "Divergences are Jensen-Shannon divergences of two distributions over the experts, from 0 to ln 2 = 0.693 nats; the normalised ones "
      "divide by how far the two are from uniform and lie between 0 and 1. Layers are counted from 0.",
      "The shuffled arm holds every sentence to the anchor of another pair. If it does as well as SARA, nothing shows "
      "that SARA closed more than an offset that all sentences of a language share.",
  };
}

}   // namespace

std::string report_page(const run_results& results, const std::vector<figure>& figures) {
  std::string languages;
  for (const std::string& language : results.low) languages += (languages.empty() ? "" : ", ") + language;
  const std::string title = "SARA fine-tuning: " + languages + " towards " + results.high;
  std::string page =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
      escape(title) + "</title>\n<style>" + style + "</style>\n</head>\n<body>\n<main>\n<h1>" + escape(title) + "</h1>\n";
  for (const std::string& warning : warnings(results)) page += paragraph(warning, "warning");
  page += paragraph(what_was_run(results)) + paragraph(what_sara_is(results), "note");

  page += "<h2>What was found</h2>\n<ul class=\"findings\">\n";
  for (const finding& one : findings(results)) {
    page += std::string("<li") + (one.headline ? " class=\"headline\"" : "") + "><b>" + escape(one.about) + "</b> " + escape(one.sentence) +
            "</li>\n";
  }
  page += "</ul>\n<h2>In figures</h2>\n";
  for (const std::string& language : results.low) page += html(main_table(results, language), "results");
  page += paragraph(about_main_table(results), "note") + paragraph(about_cloze(), "note");

  page += "<h2>In pictures</h2>\n";
  for (const figure& one : figures)
    page += "<figure>\n" + one.svg + "<figcaption>" + escape(one.how_to_read) + "</figcaption>\n</figure>\n";

  page += "<h2>How to read this</h2>\n";
  for (const std::string& text : how_to_read()) page += paragraph(text);

  page += "<h2>Layer by layer</h2>\n" +
          paragraph(
              "Means over the seeds; divergences in thousandths of a nat, normalised divergences in thousandths, entropies in nats. "
              "Unpaired compares unrelated sentences across the languages; within, two of one language.",
              "note");
  for (const std::string& language : results.low) {
    page += "<details>\n<summary>" + escape(language) + "</summary>\n" + html(layer_table(results, language), "names") + "</details>\n";
  }
  table settings{.header = {"setting", "value"}, .rows = {}};
  flatten(results.settings, "", settings);
  return page + "<h2>Settings</h2>\n" + html(settings, "settings") + "</main>\n</body>\n</html>\n";
}

void write_report(const run_results& results, const std::filesystem::path& out) {
  const std::vector<figure> figures = draw_figures(results);
  std::deque<staged_file> files;   // which do not move
  for (const figure& one : figures) files.emplace_back(out / (one.name + ".svg"), one.svg);
  files.emplace_back(out / "report.html", report_page(results, figures));
  for (staged_file& file : files) file.commit();
}

}   // namespace sara_finetune
