// The TMX reader; see read_parallel.
#pragma once

#include "corpus.hpp"

namespace sara_finetune {

parallel_text read_tmx(const parallel_source& source);

}   // namespace sara_finetune
