#include "tmx.hpp"

#include <algorithm>
#include <pugixml.hpp>
#include <set>
#include <stdexcept>
#include <string_view>
#include <unordered_set>

#include "text_file.hpp"
#include "utf8.hpp"

namespace sara_finetune {
namespace {

std::string subtags(std::string_view language) {
  std::string folded(language);
  for (char& c : folded) c = c == '_' ? '-' : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return folded;
}

// Does the wanted `en` take the found `en-US`?
bool takes(const std::string& wanted, const std::string& found) {
  return found.starts_with(wanted) && (found.size() == wanted.size() || found[wanted.size()] == '-');
}

std::string language_of(const pugi::xml_node& tuv) {
  const pugi::xml_attribute xml_lang = tuv.attribute("xml:lang");   // TMX 1.4; `lang` before
  return subtags(xml_lang ? xml_lang.value() : tuv.attribute("lang").value());
}

// Without recursion: how deep elements stand in one another is the file's choice.
std::string text_of(const pugi::xml_node& segment) {
  static const std::set<std::string_view> codes = {"bpt", "ept", "it", "ph", "ut"};
  std::string text;
  for (pugi::xml_node node = segment.first_child(); node;) {
    if (node.type() == pugi::node_pcdata || node.type() == pugi::node_cdata) text += node.value();
    if (node.type() == pugi::node_element && node.first_child() && !codes.contains(node.name())) {
      node = node.first_child();
      continue;
    }
    while (node != segment && !node.next_sibling()) node = node.parent();
    node = node == segment ? pugi::xml_node() : node.next_sibling();
  }
  return text;
}

// Line breaks and tabs are the file's layout: with the spaces about them they become one space.
std::string sentence_of(const pugi::xml_node& tuv) {
  const std::string raw = text_of(tuv.child("seg"));
  std::string text;
  constexpr std::string_view white = " \t\n\r";
  for (std::size_t at = 0; at < raw.size();) {
    const std::size_t end = std::min(raw.find_first_not_of(white, at), raw.size());
    const std::string_view gap = std::string_view(raw).substr(at, end - at);
    text += gap.find_first_not_of(' ') == std::string_view::npos ? gap : " ";
    at = std::min(raw.find_first_of(white, end), raw.size());
    text.append(raw, end, at - end);
  }
  return std::string(trim(text));
}

std::string joined(const std::set<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

// The one language beside `high`.
std::string other_language(const std::string& file, const pugi::xml_node& body, const std::string& high) {
  std::set<std::string> others;
  for (const pugi::xml_node& tu : body.children("tu")) {
    for (const pugi::xml_node& tuv : tu.children("tuv")) {
      const std::string language = language_of(tuv);
      if (!language.empty() && !takes(high, language)) others.insert(language.substr(0, language.find('-')));
    }
  }
  if (others.empty()) throw std::runtime_error(file + ": expected translations of " + high + ", found no other language");
  if (others.size() > 1) {
    throw std::runtime_error(file + ": expected one language beside " + high + ", found " + joined(others) + ": say which one is meant");
  }
  return *others.begin();
}

}   // namespace

parallel_text read_tmx(const parallel_source& source) {
  const std::string name = source.file.string(), bytes = read_text_file(source.file);
  const auto refuse = [&](std::ptrdiff_t offset, const std::string& what) {
    refuse_line(source.file, line_of(bytes, static_cast<std::size_t>(std::max<std::ptrdiff_t>(offset, 0))), what);
  };

  pugi::xml_document document;
  // White space between two inline elements of a segment is text.
  const pugi::xml_parse_result parsed =
      document.load_buffer(bytes.data(), bytes.size(), pugi::parse_default | pugi::parse_ws_pcdata, pugi::encoding_utf8);
  // Where there is no element at all, the parser points behind the end.
  const std::ptrdiff_t where = parsed.status == pugi::status_no_document_element ? 0 : parsed.offset;
  if (!parsed) refuse(where, std::string("expected well-formed XML, found: ") + parsed.description());
  const pugi::xml_node root = document.document_element(), body = root.child("body");
  if (std::string_view(root.name()) != "tmx" || !body) {
    refuse(root.offset_debug(), std::string("expected a <tmx> with a <body>, found <") + root.name() + ">" +
                                    (std::string_view(root.name()) == "tmx" ? " without one" : ""));
  }

  const std::string high = subtags(source.high);
  const std::string low = source.low.empty() ? other_language(name, body, high) : subtags(source.low);
  parallel_text text{.file = name, .language = low, .pairs = {}};
  std::unordered_set<std::string> ids;
  for (const pugi::xml_node& tu : body.children("tu")) {
    const auto side = [&](const std::string& language) {
      const auto variants = tu.children("tuv");
      const auto variant =
          std::find_if(variants.begin(), variants.end(), [&](const pugi::xml_node& tuv) { return takes(language, language_of(tuv)); });
      if (variant == variants.end()) refuse(tu.offset_debug(), "expected a <tuv> in " + language + " in this <tu>, found none");
      std::string sentence = sentence_of(*variant);
      if (sentence.empty()) refuse(variant->offset_debug(), "expected a sentence in " + language + ", found an empty <seg>");
      // A character reference such as &#xD800; is well-formed to the parser and still no text.
      if (first_invalid_utf8(sentence) != std::string::npos) {
        refuse(variant->offset_debug(), "expected UTF-8 text in " + language + ", found a reference to what is no character");
      }
      return sentence;
    };
    pair p{.id = tu.attribute("tuid").value(), .high = side(high), .low = side(low)};
    const std::string number = std::to_string(text.pairs.size() + 1);
    if (p.id.empty()) p.id = "unit " + number;
    while (!ids.insert(p.id).second) p.id += "#" + number;
    text.pairs.push_back(std::move(p));
  }
  return text;
}

}   // namespace sara_finetune
