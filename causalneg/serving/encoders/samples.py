"""Texts that backends are compared with: short and long, of several scripts, and what people type by mistake."""

QUERIES = (
    "weather",
    "a",
    "capital of australia",
    "how do vaccines work?",
    "who wrote the brothers karamazov",
    "best way to remove rust from cast iron without scrubbing",
    "difference between TCP and UDP in simple words, with examples",
    "which treaty ended the thirty years war, and in which two cities was it signed in 1648?",
    "python list index out of range when deleting items in a loop",
    "is 37.8 °C (100.04 °F) a fever in a 3-year-old?",
    "E = mc² meaning",
    "kann man mit einem deutschen Führerschein in Kanada fahren",
    "¿cuándo se fundó la ciudad de México?",
    "où se trouve la plus haute montagne d'Europe",
    "первый человек в космосе",
    "世界で一番高い山は何ですか",
    "中国有多少个省",
    "한국의 수도는 어디입니까",
    "ما هي أكبر دولة في أفريقيا",
    "भारत की राजधानी क्या है",
    "πόσα νησιά έχει η Ελλάδα",
    "WHAT IS THE POPULATION OF LAGOS???",
    "wat is teh captial of frnace",
    "   leading and trailing spaces   ",
    "😀 emoji meaning 🚀🚀",
    'site:example.org "exact phrase" -excluded',
    "SELECT name FROM users WHERE id = 7;",
    "0.30000000000000004",
    "naïve café résumé Zürich Łódź",
    "q" * 60,
    "2-(4-isobutylphenyl)propanoic acid half-life",
    "not a river in Egypt that does not flow north",
)

_PARAGRAPHS = (
    "The Peace of Westphalia is the collective name for two peace treaties signed in October 1648 in the Westphalian "
    "cities of Osnabrück and Münster. They ended the Thirty Years' War and brought peace to the Holy Roman Empire.",
    "Rust forms when iron meets water and oxygen. A paste of baking soda, left for an hour, loosens a thin layer; a "
    "bath of one part vinegar and one part water takes off more, but must not last longer than eight hours.",
    "TCP numbers every byte and sends again what was not acknowledged, so that data arrive whole and in order. UDP "
    "sends datagrams and forgets them: what is lost stays lost, but nothing waits.",
    "Юрий Гагарин совершил первый полёт в космос 12 апреля 1961 года на корабле «Восток-1» и провёл на орбите "
    "108 минут, облетев Землю один раз.",
    "エベレストはネパールと中国の国境にある世界最高峰の山で、標高は8848メートルである。1953年に初めて登頂された。",
    "Die Donau entspringt im Schwarzwald, fließt durch zehn Länder und mündet ins Schwarze Meer. Sie ist nach der "
    "Wolga der zweitlängste Fluss Europas.",
    "def mean(values):\n    if not values:\n        raise ValueError('empty')\n    return sum(values) / len(values)\n",
    "| year | population | change |\n|---|---|---|\n| 1990 | 3,141,592 | +1.2 % |\n| 2000 | 3,500,001 | +11.4 % |",
    "يقع نهر النيل في شمال شرق أفريقيا، وهو من أطول الأنهار في العالم، ويمر بأحد عشر بلدا قبل أن يصب في البحر المتوسط.",
    "Short.",
)

# Each paragraph alone, and ever more of them in a row, up to what most models have to cut.
PASSAGES = (
    *_PARAGRAPHS,
    *(" ".join((_PARAGRAPHS * 2)[start : start + count]) for count in (2, 3, 5, 10) for start in range(5)),
    *("; ".join(QUERIES[start : start + 8]) for start in (0, 16)),
)
