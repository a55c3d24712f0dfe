"""Sentences of our own that show what an embedding model can and can't tell apart.

Everyday language is here, professional language in `domain_probes`. All were written for this package.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """Two texts that either belong together or don't."""

    a: str
    b: str


@dataclass(frozen=True)
class Triplet:
    """A text, one that means the same, and one that doesn't although it looks much like it.

    A model passes when it puts `anchor` closer to `near` than to `far`.
    """

    anchor: str
    near: str
    far: str


def read_pairs(block: str) -> tuple[Pair, ...]:
    """Pairs from lines of `a | b`; an indented line continues the one before."""
    return tuple(Pair(a, b) for a, b in _records(block))


def read_triplets(block: str) -> tuple[Triplet, ...]:
    """Triplets from lines of `anchor | near | far`; an indented line continues the one before."""
    return tuple(Triplet(anchor, near, far) for anchor, near, far in _records(block))


def read_framed(block: str) -> tuple[Triplet, ...]:
    """Triplets from lines of `sentence with a {} | word | near word | far word`."""
    return tuple(
        Triplet(frame.format(word), frame.format(near), frame.format(far))
        for frame, word, near, far in _records(block)
    )


def _records(block: str) -> list[list[str]]:
    lines = block.strip().replace("\n ", " ").splitlines()
    return [[" ".join(field.split()) for field in line.split("|")] for line in lines]


SIMILAR = read_pairs("""
The train to the coast was delayed by two hours. | Our seaside train ran two hours late.
How do I reset my password? | I forgot my login code and want to set a new one.
Rent has to be paid before the fifth of each month. | Tenants must settle the rent by the 5th every month.
She quit her job to travel the world. | She left her position in order to journey around the globe.
The bakery opens at six in the morning. | You can buy bread there from 6 a.m.
Heavy rain flooded several streets downtown. | Downpours put a number of roads in the city centre under water.
The battery lasts about ten hours on a single charge. | Fully charged, it runs for roughly ten hours.
Children under twelve ride for free. | No ticket is needed for kids younger than twelve.
The museum displays paintings from the Dutch Golden Age. | Dutch art of the 17th century is shown in the gallery.
He broke his arm when he fell off the ladder. | Falling from a ladder, he fractured an arm.
The company will close its factory next spring. | The firm plans to shut the plant down in the coming spring.
What is the best time of year to plant tulips? | When should tulip bulbs be put into the ground?
The soup needs more salt. | A bit more salt would do this soup good.
Sales grew by a quarter compared with last year. | Revenue rose 25 percent year over year.
Please send the signed contract back by Friday. | Return the agreement with your signature no later than Friday.
The lake froze over for the first time in a decade. | For the first time in ten years the lake was covered with ice.
The orchestra rehearses every Tuesday evening. | On Tuesday nights the musicians of the orchestra practise together.
My flight was cancelled because of the storm. | Bad weather meant that my plane did not leave.
The new bridge connects both parts of the town. | The two halves of the town are now linked by a bridge.
Bees are dying because of certain pesticides. | Some crop sprays are killing off honeybees.
The laptop gets very hot when I play games. | During gaming my notebook computer overheats.
You can return any item within thirty days. | Purchases may be sent back for up to a month.
The novel is set in Lisbon during the war. | The story of the book takes place in wartime Lisbon.
Scientists found water ice on the dark side of a crater. | Researchers discovered frozen water in a crater's shadow.
The dog barks whenever someone rings the bell. | Every time the doorbell goes, the dog starts barking.
He learned to play the guitar by himself. | He is a self-taught guitarist.
Coffee keeps me awake if I drink it after dinner. | When I have coffee in the evening I cannot sleep.
The council voted to ban cars from the old town. | The old town will be free of cars, the councillors decided.
The cheapest room costs eighty euros per night. | Rooms start at 80 euros a night.
Prices for bread have doubled since the harvest failed. | After the poor harvest, bread costs twice as much.
""")
"""Paraphrases that share few words."""

UNRELATED = read_pairs("""
The train to the coast was delayed by two hours. | Whisk the eggs until they are pale and fluffy.
How do I reset my password? | Penguins keep their eggs warm on their feet.
Rent has to be paid before the fifth of each month. | The comet will be visible to the naked eye in June.
She quit her job to travel the world. | Rust forms when iron meets oxygen and water.
The bakery opens at six in the morning. | The referee showed a second yellow card.
Heavy rain flooded several streets downtown. | This violin was made in Cremona.
The battery lasts about ten hours on a single charge. | The queen signed the treaty with France.
Children under twelve ride for free. | Granite is harder than limestone.
The museum displays paintings from the Dutch Golden Age. | Change the oil of the engine every year.
He broke his arm when he fell off the ladder. | The choir sang in four languages.
The company will close its factory next spring. | Owls can turn their heads very far.
What is the best time of year to plant tulips? | The witness refused to answer the lawyer.
The soup needs more salt. | The satellite passes over the pole fourteen times a day.
Sales grew by a quarter compared with last year. | The kitten hid under the sofa.
Please send the signed contract back by Friday. | Coral reefs shelter a quarter of all sea fish.
The lake froze over for the first time in a decade. | A noun phrase can be the subject of a sentence.
The orchestra rehearses every Tuesday evening. | The vaccine has to be stored in a freezer.
My flight was cancelled because of the storm. | Knead the dough and let it rest.
The new bridge connects both parts of the town. | He collects stamps from South America.
Bees are dying because of certain pesticides. | The printer is out of paper again.
The laptop gets very hot when I play games. | Monks copied the manuscript by hand.
You can return any item within thirty days. | The volcano last erupted in the Bronze Age.
The novel is set in Lisbon during the war. | Add two spoons of vinegar to remove limescale.
Scientists found water ice on the dark side of a crater. | The tailor shortened both sleeves.
The dog barks whenever someone rings the bell. | Inflation erodes the value of savings.
He learned to play the guitar by himself. | Glaciers move a few metres each year.
Coffee keeps me awake if I drink it after dinner. | The defender scored an own goal.
The council voted to ban cars from the old town. | Whales breathe air through a blowhole.
The cheapest room costs eighty euros per night. | Prime numbers have exactly two divisors.
Prices for bread have doubled since the harvest failed. | She wore a long blue dress to the opera.
""")
"""Texts on different subjects."""

SYNONYMS = read_framed("""
The {} was parked outside the station. | car | automobile | bicycle
Our {} sees patients on weekdays only. | doctor | physician | hairdresser
They bought a small {} near the beach. | house | home | boat
The {} was caught with the stolen jewels. | thief | burglar | jeweller
He felt {} after the long hike. | exhausted | worn out | inspired
The film was so {} that half the audience left. | boring | dull | violent
The shop sells {} furniture. | inexpensive | cheap | antique
We had to {} the meeting until next week. | postpone | put off | prolong
She {} the invitation politely. | declined | turned down | accepted
The {} of the river is near the village. | source | spring | mouth
A {} child was crying in the corridor. | sick | ill | spoilt
The firm will {} forty people this year. | hire | take on | lay off
He gave a {} answer to my question. | brief | short | rude
The company hides its {} well. | earnings | profits | debts
They live in a {} part of the country. | remote | secluded | wealthy
The {} walked slowly towards the gate. | elderly man | old gentleman | little boy
This {} needs to be repaired. | couch | sofa | clock
It was {} to see the stars without a telescope. | impossible | out of the question | delightful
The guards {} the prisoner at dawn. | freed | released | shot
Her {} made everyone laugh. | joke | gag | hat
I {} the keys under the mat. | located | found | hid
The {} grows fast in wet soil. | maize | corn | rice
The {} of the lecture surprised us. | start | beginning | length
The pilot {} the error at once. | spotted | noticed | made
They {} the old theatre last summer. | demolished | tore down | reopened
The food there is {}. | delicious | tasty | overpriced
He was {} by the court. | acquitted | found not guilty | sentenced
The {} needs a new tyre. | lorry | truck | motorbike
""")
"""One word replaced by a synonym, or by another word that fits the sentence just as well."""

MISSPELLINGS = read_framed("""
The {} meets on the first Monday. | committee | comittee | orchestra
Please book the {} for six people. | restaurant | restuarant | apartment
We need a new {} for the kitchen. | refrigerator | refridgerator | ventilator
Her {} was moved to another office. | colleague | collegue | assistant
It is {} to wear a helmet here. | necessary | neccesary | forbidden
The {} of the valley is protected. | environment | enviroment | architecture
He studies the {} of language. | pronunciation | pronounciation | evolution
The {} takes place in May. | marriage | marrige | election
They sent a {} by post. | questionnaire | questionaire | certificate
A {} built the cupboard. | carpenter | carpentar | prisoner
She asked for a {} before paying. | receipt | reciept | discount
The {} will be ready by noon. | vegetables | vegtables | passports
The {} was cancelled at short notice. | conference | confrence | wedding
I need the {} of the hotel. | address | adress | history
His {} improved after the operation. | breathing | breatihng | eyesight
The road is closed until {}. | February | Febuary | October
The {} of the machine is simple. | maintenance | maintainance | disposal
{} struck the church tower. | Lightning | Lightening | Vandals
There is a {} between both reports. | difference | diffrence | correspondence
The {} decided the case in March. | government | goverment | tribunal
That is a strange {}. | coincidence | coincedence | monument
The {} broke during transport. | thermometer | thermomter | chandelier
They {} the new rule strongly. | recommend | recomend | criticise
The {} lasted for three years. | negotiations | negociations | construction
Two {} were seen near the shore. | dolphins | dolfins | strangers
A {} of the text is attached. | translation | transaltion | criticism
""")
"""One word misspelt as people do, or replaced by another word, correctly spelt."""

WORD_ORDER = read_triplets("""
The dog chased the cat across the yard. | Across the yard, the cat was chased by the dog.
  | The cat chased the dog across the yard.
The nurse thanked the doctor. | The doctor was thanked by the nurse. | The doctor thanked the nurse.
Is Paris farther from Rome than Berlin? | Than Berlin, is Paris the one that is farther from Rome?
  | Is Berlin farther from Rome than Paris?
The budget was approved before the audit began. | Before the audit began, the budget was approved.
  | The audit began before the budget was approved.
Anna lent Peter her car. | Peter was lent her car by Anna. | Peter lent Anna her car.
The bank sued the builder over the loan. | Over the loan, the builder was sued by the bank.
  | The builder sued the bank over the loan.
Flights from Oslo to Madrid are cheap. | Cheap are the flights to Madrid from Oslo.
  | Flights from Madrid to Oslo are cheap.
The teacher who praised the boy was new. | New was the teacher by whom the boy was praised.
  | The boy who praised the teacher was new.
Sweden beat Denmark by three goals. | By three goals, Denmark was beaten by Sweden.
  | Denmark beat Sweden by three goals.
Only the manager can cancel an order. | An order can be cancelled by the manager only.
  | The manager can only cancel an order.
How do I convert miles into kilometres? | Into kilometres, how do I convert miles?
  | How do I convert kilometres into miles?
The mother of the girl sent the letter. | The letter was sent by the girl's mother.
  | The girl sent the letter of the mother.
The red car hit the blue one. | The blue car was hit by the red one. | The blue car hit the red one.
Wolves outnumber bears in this forest. | In this forest, bears are outnumbered by wolves.
  | Bears outnumber wolves in this forest.
The minister accused the reporter of lying. | Of lying the reporter was accused by the minister.
  | The reporter accused the minister of lying.
She moved to Boston after she married. | After she married, she moved to Boston.
  | She married after she moved to Boston.
The larger firm bought the smaller one. | The smaller firm was bought by the larger one.
  | The smaller firm bought the larger one.
The son is taller than his father. | Than his father, the son is taller. | The father is taller than his son.
Salt was traded for gold. | For gold, salt was traded. | Gold was traded for salt.
The judge believed the witness, not the accused. | Not the accused but the witness was believed by the judge.
  | The judge believed the accused, not the witness.
My sister's friend met your brother. | Your brother was met by my sister's friend.
  | Your brother's friend met my sister.
The ship rescued the helicopter's crew. | The helicopter's crew was rescued by the ship.
  | The helicopter rescued the ship's crew.
Rain falls more often than snow here. | Here, more often than snow, rain falls.
  | Snow falls more often than rain here.
The copy was better than the original. | Better than the original was the copy.
  | The original was better than the copy.
""")
"""The same words: once reordered without a change of meaning, once with the roles exchanged."""

NEGATION = read_triplets("""
The shop is open on Sundays. | You can go to that shop on a Sunday. | The shop is not open on Sundays.
He never smoked. | At no time in his life was he a smoker. | He always smoked.
The test found the virus. | The virus turned up in the test. | The test did not find the virus.
Dogs are allowed in the garden. | You may bring your dog into the garden. | No dogs are allowed in the garden.
The engine started at once. | Straight away the engine was running. | The engine failed to start.
Nobody was hurt in the accident. | Everyone came out of the crash unharmed. | Somebody was hurt in the accident.
The treatment is safe for children. | Children can have this treatment without danger.
  | The treatment is unsafe for children.
She has finished her thesis. | Her thesis is done. | She has not finished her thesis.
The offer includes breakfast. | Breakfast comes with the offer. | The offer excludes breakfast.
Prices rose in autumn. | In autumn everything became dearer. | Prices fell in autumn.
I agree with the proposal. | The suggestion has my support. | I disagree with the proposal.
The lake is deep enough for diving. | One can dive in the lake, it has the depth.
  | The lake is too shallow for diving.
All rooms have a balcony. | There is a balcony in each of the rooms. | None of the rooms has a balcony.
The suspect admitted the theft. | The man under suspicion confessed to stealing. | The suspect denied the theft.
Helmets are compulsory. | You have to wear a helmet. | Helmets are optional.
The bridge can carry lorries. | Lorries may drive over the bridge. | The bridge cannot carry lorries.
The patient is allergic to nuts. | Nuts cause the patient an allergic reaction.
  | The patient is not allergic to nuts.
The film was a success. | Many people went to see the film and liked it. | The film was a failure.
The parcel arrived undamaged. | The package reached us in perfect condition. | The parcel arrived damaged.
Water is scarce in the village. | The villagers have hardly any water. | Water is plentiful in the village.
The minister will resign. | The minister is going to step down. | The minister will not resign.
It is easy to install. | Setting it up takes no effort. | It is hard to install.
The contract was renewed. | They extended the agreement for another term. | The contract was terminated.
The update fixed the crash. | Since the update it no longer crashes. | The update did not fix the crash.
He remembered to lock the door. | He did not forget to turn the key. | He forgot to lock the door.
""")
"""A statement, the same in other words, and its opposite in nearly its own words."""
