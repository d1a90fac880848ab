// The progress bar's very characters, under a clock of our own.
#include "sara_finetune/progress.hpp"

#include <algorithm>
#include <limits>
#include <sstream>

#include "catch.hpp"

namespace {

using sara_finetune::progress_bar, sara_finetune::progress_figures;

struct shown {
  double seconds = 100;
  std::ostringstream out = {};

  sara_finetune::progress_options options(int width = 100, std::int64_t first_step = 0) {
    return {.first_step = first_step, .width = width, .seconds = [this] { return seconds; }};
  }
  std::string taken() {
    const std::string text = out.str();
    out.str("");
    return text;
  }
};

const std::string erase = "\x1b[K";

}   // namespace

TEST_CASE("progress_bar: redraws its line on a terminal", "[sara_finetune]") {
  shown on;
  progress_bar bar("pretrain", 200, on.out, true, on.options(109));
  REQUIRE(on.taken() == "");
  on.seconds += 2;
  bar.update(50, {.tokens = 25000, .losses = {{"loss", 7.1234}, {"balance", 1.0049}, {"divergence", 0.00521}}});
  REQUIRE(on.taken() ==
          "\rpretrain  [==>     ]   25 %  50/200  12.5k tokens/s  loss 7.123  balance 1.005  divergence 0.0052  0:06 left" + erase);
  on.seconds += 98;
  bar.update(200, {.tokens = 100000, .losses = {{"loss", 5}}});
  REQUIRE(on.taken() == "\rpretrain  [==============================]  100 %  200/200  765 tokens/s  loss 5.000  0:00 left" + erase);
  bar.finish();
  REQUIRE(on.taken() == "\rpretrain  [==============================]  100 %  200/200  1000 tokens/s  loss 5.000  1:40" + erase + "\n");
  bar.finish();
  bar.update(200, {});
  REQUIRE(on.taken() == "");
}

TEST_CASE("progress_bar: at most ten redraws a second", "[sara_finetune]") {
  shown on;
  progress_bar bar("stage", 10000, on.out, true, on.options());
  int redraws = 0;
  for (int step = 1; step <= 3000; ++step) {
    on.seconds = 100 + step / 1000.0;
    bar.update(step, {});
    redraws += on.taken().empty() ? 0 : 1;
  }
  REQUIRE(redraws >= 28);
  REQUIRE(redraws <= 30);
}

TEST_CASE("progress_bar: a plain line now and then elsewhere", "[sara_finetune]") {
  shown on;
  {
    progress_bar bar("finetune sara", 100, on.out, false, on.options());
    for (int step = 1; step <= 50; ++step) {
      ++on.seconds;
      bar.update(step, {.tokens = step * 700, .losses = {{"loss", 4}}});
      if (step % 10 == 0) {
        const std::string left = step == 10 ? "1:30" : step == 20 ? "1:20" : step == 30 ? "1:10" : step == 40 ? "1:00" : "0:50";
        REQUIRE(on.taken() == "finetune sara   " + std::to_string(step) + " %  " + std::to_string(step) +
                                  "/100  700 tokens/s  loss 4.000  " + left + " left\n");
      } else {
        REQUIRE(on.taken() == "");
      }
    }
    ++on.seconds;
    bar.update(51, {.tokens = 35700});
    bar.finish();
    REQUIRE(on.taken() == "finetune sara   51 %  51/100  700 tokens/s  0:51\n");
  }
  REQUIRE(on.taken() == "");
}

TEST_CASE("progress_bar: a resumed run's speed is its own", "[sara_finetune]") {
  shown on;
  progress_bar bar("pretrain", 1000, on.out, false, on.options(0, 900));
  on.seconds += 10;
  bar.update(910, {.tokens = 5000});
  REQUIRE(on.taken() == "pretrain   91 %  910/1000  500 tokens/s  1:30 left\n");
  on.seconds += 90;
  bar.update(1000, {.tokens = 50000});
  on.taken();
  bar.finish();
  REQUIRE(on.taken() == "pretrain  100 %  1000/1000  500 tokens/s  1:40\n");
}

TEST_CASE("progress_bar: the speed is of the last seconds, the end's of the whole", "[sara_finetune]") {
  shown on;
  progress_bar bar("stage", 4000, on.out, false, on.options());
  int step = 0;
  const auto run = [&](int seconds, int steps_a_second) {
    for (int i = 0; i < seconds; ++i) {
      ++on.seconds;
      step += steps_a_second;
      bar.update(step, {.tokens = step * 10});
    }
  };
  run(100, 10);
  on.taken();
  run(100, 20);
  const std::string text = on.taken(), last = text.substr(text.rfind('\n', text.size() - 2) + 1);
  REQUIRE(last == "stage   75 %  3000/4000  200 tokens/s  0:50 left\n");
  bar.finish();
  REQUIRE(on.taken() == "stage   75 %  3000/4000  150 tokens/s  3:20\n");
}

TEST_CASE("progress_bar: fits the terminal, whatever its width", "[sara_finetune]") {
  for (int width = 1; width <= 160; ++width) {
    shown on;
    progress_bar bar("umbo – ñandú", 200, on.out, true, on.options(width));
    ++on.seconds;
    bar.update(101, {.tokens = 2345678, .losses = {{"loss", 7.1}, {"balance", 1}}});
    std::string text = on.taken();
    REQUIRE(text.starts_with("\r"));
    REQUIRE(text.ends_with(erase));
    text = text.substr(1, text.size() - 1 - erase.size());
    int columns = 0;
    for (const char byte : text) columns += (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
    const int all = 14 + static_cast<int>(std::string(" 50 %  101/200  2.35M tokens/s  loss 7.100  balance 1.000  0:01 left").size());
    const int fewer = all - 15;   // without the balance
    const int bar_of = width - 1 >= all + 12 ? all : fewer;
    INFO(width << ": " << text);
    REQUIRE((text.find("balance") != std::string::npos) == (bar_of == all));
    REQUIRE((text.find("left") != std::string::npos) == (width - 1 >= fewer));
    REQUIRE((text.find('[') != std::string::npos) == (width - 1 >= bar_of + 12));
    REQUIRE(columns == (width - 1 >= bar_of + 12 ? std::min(width - 1, bar_of + 34) : std::clamp(width - 1, 1, fewer)));
    REQUIRE((text.back() & 0xC0) != 0xC0);   // no character is cut in two
  }
}

TEST_CASE("progress_bar: an error's sentence begins its own line", "[sara_finetune]") {
  shown on;
  {
    progress_bar bar("s", 2, on.out, true, on.options(40));
    ++on.seconds;
    bar.update(1, {});
    const std::string drawn = on.taken();
    REQUIRE(drawn == "\rs  [=====>     ]   50 %  1/2  0:01 left" + erase);
  }
  REQUIRE(on.taken() == "\n");
  { progress_bar never_drawn("s", 2, on.out, true, on.options(40)); }
  REQUIRE(on.taken() == "");
}

TEST_CASE("progress_bar: odd figures", "[sara_finetune]") {
  shown on;
  progress_bar none("s", 0, on.out, false, on.options());
  none.finish();
  REQUIRE(on.taken() == "s  100 %  0/0  0:00\n");
  progress_bar slow("s", 1000000, on.out, false, on.options());
  on.seconds += 3723;
  slow.update(1, {.losses = {{"loss", std::numeric_limits<double>::quiet_NaN()}, {"less", -0.5}, {"zero", 0}}});
  REQUIRE(on.taken() == "s    0 %  1/1000000  loss nan  less -0.5000  zero 0.000  over 100 h left\n");
  slow.update(999999, {});
  on.seconds += 10;
  slow.update(2000000, {});
  slow.finish();
  REQUIRE(on.taken() == "s  100 %  2000000/1000000  0:00 left\ns  100 %  2000000/1000000  1:02:13\n");
}
