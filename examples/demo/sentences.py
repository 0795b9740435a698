"""What the demo embeds: sentences and passages of one word to about two hundred, in batches."""

SENTENCES: tuple[str, ...] = (
    "Rain.",
    "Good morning!",
    "Where is the station?",
    "The kettle is already boiling.",
    "She plays the cello every Thursday.",
    "Invoice 4471 was paid on 3 March 2021.",
    "Please restart the server before you run the tests.",
    "Two cats slept on the warm bonnet of the car.",
    "A pair of kittens was napping on top of a parked vehicle.",
    "The committee postponed its vote, because half of its members were ill.",
    "def mean(xs): return sum(xs) / len(xs)  # fails for an empty list",
    "Le train pour Lyon part du quai numéro sept à dix-huit heures trente.",
    "Water boils at 100 °C at sea level, but at only about 71 °C on the top of Mount Everest.",
    "My order arrived with a cracked lid and one cup missing; I would like a replacement, or else "
    "my money back.",
    "How do I keep a PyTorch model from compiling again each time its input has a length that it "
    "has not seen before?",
    "The lighthouse keeper wrote down the wind, the state of the sea and the names of passing "
    "ships three times a day for thirty-one years, and missed only one entry.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen. It takes place "
    "in the chloroplasts, whose green pigment absorbs mostly red and blue light, which is why "
    "leaves look the way they do.",
    "To make the dough, stir the flour, salt and yeast together, add the lukewarm water, and "
    "knead for ten minutes. Cover the bowl with a cloth and let it stand in a warm place until "
    "the dough has doubled in size. Then shape two loaves and bake them for half an hour.",
    "The tenant may end this agreement at any time by giving the landlord one month's notice in "
    "writing. The landlord may end it only for the reasons set out in section nine, and then with "
    "three months' notice. Notice is given on the day on which the letter arrives, not on the "
    "day on which it was sent.",
    "In the second half the visitors pressed higher up the pitch, and it paid off almost at once. "
    "A careless pass out of defence was picked up thirty metres from the goal, and the shot that "
    "followed went in off the left post. From then on the home side hardly crossed the halfway "
    "line, and in the end they were lucky to lose by a single goal.",
    "When the old bridge was measured for its repair, the engineers found that no two of its "
    "arches were alike. The masons had worked from both banks towards the middle, each team with "
    "a rod of its own, and the rods differed by the width of a finger. Nobody had noticed for "
    "four hundred years, since the error was shared out over eleven arches, and since the river, "
    "which moves its bed a little with every flood, had given people other things to worry about.",
    "A compiler that knows the shapes of its inputs can plan memory, unroll loops and pick the "
    "best kernel for each product of matrices. One that does not has to leave these choices open, "
    "or make them again whenever a new shape comes along. The usual way out is to compile for a "
    "whole range of sizes at once: the code holds for every size in the range, and where a single "
    "size matters more than the others it gets code of its own. What remains is to find the "
    "right code quickly when a call arrives, and to be sure that no call slips through with a "
    "size nobody thought of.",
    "The town lies where the valley is at its narrowest, so that the road, the railway and the "
    "river have to share what little room there is. In winter the sun reaches the market square "
    "for less than two hours a day, and not at all between the end of November and the middle of "
    "January. The people who live here say that they do not mind. They hang lanterns in the "
    "windows, they meet in the two cafés that stay open, and on the day when the first ray "
    "touches the clock on the town hall again the school is closed, the brass band plays, and "
    "everyone is given a bun with raisins in it. Visitors, who come for the skiing and leave "
    "before dark, hardly ever see any of this.",
    "Before the voyage the navigator checked every chart twice. Some of them were older than the "
    "ship, and on these the coast was drawn as sailors had seen it from a distance, with hills "
    "that looked like saddles and trees that had long since been felled. Others were new, and so "
    "exact that they showed each rock, yet they ended in the middle of the strait, at the line "
    "where one country's survey had stopped and the next one's had never begun. She laid the "
    "sheets on the floor of the cabin, edge to edge, and walked around them in her socks. Where "
    "two of them did not agree she made a small mark in pencil, and beside it she noted which of "
    "the two she would believe, and why. There were forty-three marks by the evening. The "
    "captain, who had been this way before, looked at them for a while, pointed at three, and "
    "said that in those places both of the charts were wrong. He had run aground at one of them "
    "as a young man, on a calm day in June, with the pilot standing next to him. Nobody was hurt. "
    "They simply waited for the tide, ate their lunch, and floated off again at four.",
)

# The first has several texts of different lengths, so that both axes are at work in the first call.
BATCHES: tuple[tuple[int, ...], ...] = (
    (3, 8, 14, 0, 10),
    (0, 1),
    (2, 23),
    (7, 8, 9, 10, 11, 12, 13),
    tuple(range(16)),
    tuple(range(8, 24)),
    *((index,) for index in range(len(SENTENCES))),
)
"""Indices of the sentences in each call: padded batches, then every sentence by itself."""
