"""Professional terms, each with what it means and with the meaning of a neighbouring term."""

from __future__ import annotations

from rag_plugin.evaluation.probes import read_triplets

MEDICAL = read_triplets("""
myocardial infarction | heart muscle dies because its blood supply is blocked | the sac around the heart is inflamed
hypertension | blood pressure that is too high | blood pressure that is too low
tachycardia | the heart beats too fast | the heart beats too slowly
hypoglycaemia | too little sugar in the blood | too little calcium in the blood
renal failure | the kidneys no longer work | the liver no longer works
pruritus | itching of the skin | yellowing of the skin
dyspnoea | being short of breath | having trouble swallowing
epistaxis | a nosebleed | a blocked nose
analgesic | a drug that relieves pain | a drug that kills bacteria
antipyretic | a medicine that brings down a fever | a medicine that stops vomiting
ophthalmologist | a doctor for diseases of the eye | a doctor for diseases of the ear
oncology | the branch of medicine that treats cancer | the branch of medicine that treats children
osteoporosis | bones that become thin and break easily | joints that are swollen and inflamed
cerebrovascular accident | a stroke | a concussion
otitis media | an infection of the middle ear | an infection of the throat
cholecystectomy | surgery to take out the gallbladder | surgery to take out the appendix
anaemia | too few red cells in the blood | too few platelets in the blood
alopecia | losing one's hair | losing one's memory
insomnia | being unable to fall asleep | falling asleep without warning during the day
haematuria | blood in the urine | blood in the stool
contraindicated | must not be given to this patient | should be given to this patient twice a day
intravenous | given into a vein | given under the skin
benign | a growth that is not cancer | a growth that is cancer and spreads
prophylaxis | measures that prevent a disease | measures that diagnose a disease
""")
"""Diseases, drugs and procedures against plain words."""

LEGAL = read_triplets("""
plaintiff | the person who brings a lawsuit | the person against whom a lawsuit is brought
lessee | someone who rents property from its owner | someone who lets property to another
indemnity | a promise to make good another's loss | a promise to keep information secret
force majeure | events beyond control excuse a party from performing | a party ends the contract without a reason
acquittal | a finding that the accused is not guilty | a finding that the accused is guilty
affidavit | a written statement made under oath | a written order to appear in court
subpoena | an order to testify in court | an order to search a house
testator | a person who has made a will | a person who inherits under a will
probate | proving that a will is valid | dividing property after a divorce
tort | a civil wrong for which damages may be claimed | a crime for which one may go to prison
embezzlement | taking money that one was trusted with | taking money by threatening somebody
perjury | lying to a court under oath | offering money to an official
alimony | payments to a former spouse | payments to a former employee
easement | a right to cross another's land | a duty to pay tax on land
severability | if one clause is void the rest stays in force | the whole text replaces earlier agreements
arbitration | a private decision of a dispute outside the courts | a second hearing before a higher court
statute of limitations | the time after which no claim can be brought | the highest fine that a law permits
novation | a new party takes over the contract from an old one | a party repeats its promise in the same contract
injunction | a court order to stop doing something | a court order to pay a sum of money
liquidated damages | a sum for breach agreed upon in advance | money for pain and suffering set by a jury
pro bono | legal work done without pay | legal work paid by a share of what is won
habeas corpus | a detained person must be brought before a judge | an accused person may remain silent
collateral | property pledged to secure a loan | interest charged on a loan
defamation | a false statement that harms a reputation | a secret recording that invades privacy
""")
"""Terms of contracts, courts and estates against plain words."""

TECHNICAL = read_triplets("""
idempotent request | repeating the call changes nothing more | the call is always answered from memory
race condition | the result depends on which thread comes first | two threads wait for each other forever
memory leak | memory that is never given back | writing past the end of an array
latency | how long one request takes | how many requests are served each second
load balancer | spreads requests over several servers | blocks requests from unknown addresses
foreign key | a column that refers to a row of another table | a column whose values never repeat
two-factor authentication | a second proof of identity at login | one login for several applications
rollback | undoing a transaction that failed | copying a database to another machine
garbage collector | frees objects that nothing refers to | removes code that is never run
symmetric encryption | the same key locks and unlocks | one key locks and another unlocks
hash collision | two inputs give the same digest | an input is too large for the table
recursion | a function that calls itself | a function that is passed to another
regression test | checks that what worked still works | measures how many users the system bears
pull request | proposing a change for review before it is merged | copying a repository to one's own disk
overfitting | the model knows its training data by heart and fails on new data
  | the model is too simple even for its training data
deadlock | processes block each other and none can go on | a process crashes and is started again
DNS | turns host names into addresses | assigns an address to a device that joins the network
cron job | a task that runs at set times | a task that runs when a file changes
SQL injection | hostile input becomes part of a database query | hostile scripts run in a visitor's browser
torque | the turning force of a motor | the number of revolutions per minute
tolerance | how far a dimension may deviate | how rough a surface may be
short circuit | current takes a path of almost no resistance | the current is cut off by an open switch
corrosion | metal eaten away by chemical attack | metal that breaks after many load cycles
thermal insulation | keeps heat from passing through | carries heat away from a component
""")
"""Terms of software and engineering against plain words."""
