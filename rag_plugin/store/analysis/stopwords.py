"""Function words by language: articles, pronouns, prepositions, conjunctions, auxiliaries.

A stop word carries no topic, so its postings are the longest of an index and cost the most to score.
The lists are short on purpose: a missing word costs time only (its idf is near zero anyway), a wrong one
loses answers. Languages written with elisions (``l'homme``, ``don't``) list the fragments that splitting
at the apostrophe leaves behind.

Words are written as the analyzer compares them: lower case, accents kept.

Source: general grammars; coverage was compared with the sizes of the Snowball project's lists
(https://snowballstem.org), which are longer.
"""

from __future__ import annotations

_WORDS = {
    "arabic": """
        في من على إلى الى عن مع هذا هذه ذلك تلك هؤلاء التي الذي الذين اللذان اللتان هو هي هم هن أنا انا نحن
        أنت انت أنتم كان كانت كانوا يكون تكون ليس ليست ما ماذا لم لن لا أن ان إن إنه أنه انه أنها انها قد
        لقد كل بعض أو او أم ام ثم بل لكن ولكن حتى إذا اذا إذ كما بين عند منذ خلال قبل بعد حول دون غير أي اي
        أين اين متى كيف لماذا كم هل مما فيه فيها به بها له لها عليه عليها منه منها إليه إليها لهم و وفي ومن وهو وهي
        وقد وكان وكانت وعلى وأن وهذا والتي والذي بأن لأن حيث هناك هنا تم يتم أيضا ايضا فقط سوف ذات
    """,
    "armenian": """
        և ու եւ կամ բայց որ որը որի էր է են էի եմ ես էին էինք այս այդ այն նա նրա նրանք մենք դու դուք իր մեր
        ին ի մեջ համար հետ վրա թե եթե նաև պետք էլ չի
    """,
    "basque": """
        eta edo baina ez da dira zen ziren du dute zuen zuten bat batzuk hau hori hura hauek horiek haiek
        ni zu gu nik zuk guk bere ere beste ala izan egin dago daude zer nor non noiz nola
    """,
    "catalan": """
        el la els les un una uns unes de del dels d l n s m t a al als en amb per pel pels i o ni però que què
        qui com quan on és són era eren ser estar ha han he hem haver hi ho em et es ens us li jo tu ell ella
        nosaltres vosaltres ells elles meu teu seu nostre vostre aquest aquesta aquests aquestes això allò
        no sí més molt també si sense sobre entre fins des
    """,
    "czech": """
        a i o u v s z k se si je jsou byl byla bylo byli být jsem jsi jsme jste bude budou na do od po pro při
        za ze ve ke ku nad pod před mezi bez ale nebo ani že aby když protože jak jako tak také také už jen
        ten ta to ti ty toho tom tím této tento tato co kdo který která které kteří kde kdy proč on ona ono
        oni my vy já mě mi jeho její jejich ne by
    """,
    "danish": """
        og i jeg det at en et den til er som på de med han af for ikke der var mig sig men har om vi min havde
        ham hun nu over da fra du ud sin dem os op man hans hvor eller hvad skal selv her alle vil blev kunne
        ind når være dog noget ville jo deres efter ned skulle denne dette disse også end have hende mine
        hvis din hvem hvilken hvilke hvornår hvordan hvorfor blive bliver kan sit
    """,
    "dutch": """
        de het een en van ik te dat die in je is niet zijn op aan met als voor had er maar om hem dan zou of
        wat mijn men dit zo door over ze zich bij ook tot me uit der daar haar naar heb heeft hebben deze
        want nog zal mij zij nu ge geen omdat iets worden toch al waren veel meer doen moet ben zonder kan
        hun dus alles onder ja werd wordt wie waar wanneer hoe waarom welke welk was hij wij we u t s
    """,
    "english": """
        a about above after again against all am an and any are aren as at be because been before being below
        between both but by can couldn d did didn do does doesn doing don down during each few for from further
        had hadn has hasn have haven having he her here hers herself him himself his how i if in into is isn it
        its itself just ll m me more most mustn my myself no nor not now of off on once only or other our ours
        ourselves out over own re s same she should shouldn so some such t than that the their theirs them
        themselves then there these they this those through to too under until up ve very was wasn we were weren
        what when where which while who whom whose why will with won would wouldn you your yours yourself
        yourselves
    """,
    "esperanto": """
        la kaj aŭ sed de da en al el por per kun sen sur sub inter pri ĉe ĝis post antaŭ ke ĉu kiu kio kie kiam
        kiel kial tiu tio tie tiam tiel mi vi li ŝi ĝi ni ili si mia via lia ŝia ĝia nia ilia sia estas estis
        estos esti ne jes ankaŭ nur pli plej se jam tre
    """,
    "estonian": """
        ja ning või aga kuid et kui on oli olid oma ei ka see seda selle need nende ta tema nad nende ma mina sa
        sina me meie te teie kes mis mida kus millal kuidas miks juba veel siis nii nagu siin seal olema ole
        olla saab
    """,
    "finnish": """
        ja tai sekä mutta vaan että jotta koska kun jos niin kuin myös on oli ovat olivat olla ole en et ei emme
        ette eivät minä sinä hän me te he se ne tämä tuo nämä nuo sen sitä siitä siinä tämän tätä tässä joka
        jotka jonka jota jossa mikä mitä missä milloin miten miksi kuka ketä minun sinun hänen meidän teidän
        heidän niiden nyt jo vielä
    """,
    "french": """
        le la les l un une des de du d à au aux en dans par pour sur sous avec sans entre vers chez et ou où ni
        mais donc or car que qu qui quoi dont quel quelle quels quelles ce c cet cette ces ça cela ceci je j tu il
        elle on nous vous ils elles me m te t se s lui leur leurs y mon ma mes ton ta tes son sa ses notre nos
        votre vos ne n pas plus est sont était étaient être été suis es sommes êtes sera seront ai as a avons avez
        ont avait avaient avoir eu si comme quand comment pourquoi aussi très jusqu lorsqu puisqu
    """,
    "german": """
        der die das des dem den ein eine einer eines einem einen und oder aber denn doch sondern als wie wenn
        weil dass daß ob in im an am auf aus bei beim mit nach von vom vor zu zum zur für gegen ohne um durch
        über unter zwischen bis seit während ich du er sie es wir ihr mich dich ihn uns euch mir dir ihm ihnen
        sich mein meine meiner meinem meinen dein deine sein seine seiner seines seinem seinen ihre ihrer ihres
        ihrem ihren unser unsere euer eure dieser diese dieses diesem diesen jener jene jenes welcher welche
        welches welchem welchen wer was wem wen wessen wo wann warum wieso woher wohin
        woran worauf woraus worin worum wovon wozu wodurch wogegen womit ab viel viele vielen beide beiden etwas
        alle allen aller alles andere anderer anderes anderen anderem solche solcher solches solchen mehr selbst
        neben hinter wegen trotz statt außer innerhalb außerhalb indem sonst zwar jetzt hin her würde würden
        einige einigen manche manchen jede jeder jedes jedem jeden bin bist ist sind seid
        war waren warst wart gewesen wird werden wurde wurden worden habe hast hat haben hatte hatten kann
        können konnte konnten muss müssen musste soll sollen sollte will wollen wollte nicht kein keine keiner
        keinen keinem auch nur noch schon so sehr da dann hier dort man nun also damit dabei dazu
    """,
    "greek": """
        ο η το οι τα του της των τον την τους τις στο στη στην στον στα στους στις και ή αλλά όμως να θα δεν μη
        μην με για από σε ως προς κατά μετά πριν που ποιος ποια ποιο ποιοι τι πως πώς πότε γιατί όταν αν είναι
        ήταν είμαι έχει έχουν είχε αυτό αυτός αυτή αυτά αυτοί εγώ εσύ εμείς εσείς μου σου μας σας ένα ένας μια
        μία όπως επίσης πιο πολύ
    """,
    "hindi": """
        का के की को में से पर ने है हैं था थी थे हो होना और या एक यह ये वह वे इस उस इन उन इसके उसके जो जिस कि तो
        भी ही नहीं न कर करने करना किया गया गई गए लिए साथ तक अपने अपना अपनी क्या कौन कब कहाँ कैसे क्यों मैं हम आप
        तुम द्वारा बाद जब तब रहा रहे रही कुछ
    """,
    "hungarian": """
        a az egy és vagy de hogy ha is nem ne csak már még mint ez azt ezt ezek azok ezen azon én te ő mi ti ők
        van vannak volt voltak lesz lehet meg el fel ki be le át aki ami amely ahol amikor mert sem minden ki
        mit hol mikor hogyan miért melyik után alatt között pedig így úgy nagyon
    """,
    "indonesian": """
        yang dan di ke dari untuk pada dengan dalam adalah ini itu tidak akan atau juga oleh sebagai karena
        telah sudah ada saya aku kamu anda dia ia kami kita mereka nya bisa dapat lebih agar bahwa tetapi tapi
        jika saat ketika para apa siapa kapan mana bagaimana mengapa hanya masih
    """,
    "irish": """
        an na a agus nó ach i in ar le ag ó do de go faoi as chuig is ba tá bhí níl beidh sé sí siad mé tú muid
        sibh seo sin a d b m mo ár bhur nach má dá cad cé cá conas
    """,
    "italian": """
        il lo la i gli le l un uno una di a da in con su per tra fra del dello della dei degli delle dell al
        allo alla ai agli alle all dal dallo dalla dai dagli dalle dall nel nello nella nei negli nelle nell
        sul sullo sulla sui sugli sulle sull e ed o ma se che chi cui non come dove quando perché quale quali
        quanto è sono era erano essere stato stata stati state ha hanno ho hai abbiamo avere aveva avevano io
        tu lui lei noi voi loro mi ti si ci vi ne c d mio mia tuo tua suo sua suoi sue nostro vostro questo
        questa questi queste quello quella quelli quelle quell anche più
    """,
    "lithuanian": """
        ir ar bet kad kaip jei nes tai tas ta tie tos šis ši šie šios jis ji jie jos aš tu mes jūs yra buvo būti
        bus ne į iš su be po prie per už nuo iki apie dėl kas kur kada kodėl kuris kuri kurie taip pat jau dar
        tik savo
    """,
    "nepali": """
        को का की मा ले लाई र वा पनि छ छन् थियो थिए हो हुन् यो त्यो यी ती एक गर्न गरेको भएको भने लागि बाट सँग
        तर के कुन कहाँ कहिले कसरी किन म हामी तपाईं उनी उनले
    """,
    "norwegian": """
        og i jeg det at en et ei den til er som på de med han av for ikke ikkje der var meg seg men har om vi
        min mitt mine hadde ham henne hun nå over da fra du ut sin sitt sine dem oss opp man kan hans hvor
        eller hva skal selv her alle vil ble blei blitt kunne inn når være kom noe ville deres de etter ned
        skulle denne dette disse også enn hvis hvem hvilken hvilke hvordan hvorfor eg dei ein eit
    """,
    "persian": """
        و در به از که این آن را با است بود برای یا تا بر هم نیز یک هر خود شد شده شود می نمی های ها او آنها ما
        شما من تو ولی اما اگر چه چی کی کجا چرا چگونه باید دارد دارند کرد کرده بین پس پیش هستند بودند
    """,
    "polish": """
        i a o u w z we ze na do od po dla przy za nad pod przed między bez oraz lub albo ale że żeby gdy jeśli
        bo jak jako tak też także już tylko ten ta to te ci tego tej tym tych temu co kto który która które
        którzy którego której gdzie kiedy dlaczego jest są był była było były być będzie on ona ono oni one my
        wy ja mnie mi się jego jej ich nie czy by
    """,
    "portuguese": """
        o a os as um uma uns umas de do da dos das d em no na nos nas por pelo pela pelos pelas para com sem sob
        sobre entre até e ou nem mas que quem qual quais cujo onde quando como porque se não é são era eram foi
        foram ser sido está estão estava estar tem têm tinha ter há eu tu ele ela nós vós eles elles elas me te
        lhe lhes meu minha teu tua seu sua seus suas nosso nossa este esta estes estas esse essa isso isto
        aquele aquela aquilo ao à aos às num numa mais muito também já
    """,
    "romanian": """
        și si în in de la cu pe din pentru prin despre sub peste între un o unei unui niște al a ai ale lui este
        e sunt era erau fi fost am ai are au avea eu tu el ea noi voi ei ele îl îi le se să sa că ca care ce
        cine unde când cum dar sau nici nu mai foarte acest această acești aceste acel acea acei acele cel cea
        cei cele
    """,
    "russian": """
        и в во не что он на я с со как а то все она так его но да ты к у же вы за бы по только ее её мне было
        вот от меня еще ещё нет о из ему когда даже ну ли если уже или ни быть был него до вас нибудь уж вам
        ведь там потом себя ничего ей может они тут где есть надо ней для мы тебя их чем была сам чтоб без
        чего раз тоже себе под будет тогда кто этот того потому этого какой какая какие ним здесь этом один
        мой тем чтобы нее неё были куда зачем при об хоть после над больше тот через эти нас про них который
        которая которые которого которой
    """,
    "serbian": """
        и у на је да се за од са су не као из али или што који која које кад где како зашто био била било били
        бити ће би он она оно они оне ја ти ми ви овај ова ово тај та то до по о при него ако јер
        i u na je da se za od sa su ne kao iz ali ili što koji koja koje kad gde kako zašto bio bila bilo bili
        biti će bi on ona ono oni one ja ti mi vi ovaj ova ovo taj ta to do po o pri nego ako jer
    """,
    "sesotho": "le la ba ka ke ho ha a e o di tsa ya wa sa mo hore empa kapa",
    "spanish": """
        el la los las un una unos unas de del a al en con por para sin sobre entre hasta desde y e o u ni pero
        sino que qué quien quién quienes cual cuál cuales como cómo cuando cuándo donde dónde porque si no es
        son era eran fue fueron ser sido está están estaba estar ha han había haber hay he yo tú él ella
        nosotros vosotros ellos ellas me te se nos os le les lo mi mis tu tus su sus nuestro nuestra vuestro
        este esta estos estas esto ese esa esos esas eso aquel aquella aquello más muy también ya
    """,
    "swedish": """
        och det att i en jag hon som han på den med var sig för så till är men ett om hade de av icke mig du
        henne då sin nu har inte hans honom skulle hennes där min man ej vid kunde något från ut när efter upp
        vi dem vara vad över än dig kan sina här ha mot alla under någon eller allt mycket sedan ju denna
        detta dessa själv utan varit hur ingen mitt ni bli blev oss din vem vilken vilka vilket varför vart
        blir också
    """,
    "tamil": """
        ஒரு என்று மற்றும் இந்த இது அந்த அது என்ற என்பது ஆகும் உள்ள உள்ளது அவர் அவர்கள் நான் நீ நாம் இல்லை
        மேலும் அல்லது ஆனால் என்ன எங்கே எப்போது எப்படி ஏன் யார் பின்னர் போன்ற
    """,
    "turkish": """
        ve ile veya ya da de ki bu şu o bir için gibi kadar daha çok en mi mı mu mü ne kim nerede nasıl neden
        niçin hangi ben sen biz siz onlar bana sana ona onun onu bunu ama fakat ancak çünkü eğer her hiç ise
        idi olan olarak oldu olduğu var yok değil
    """,
    "yiddish": """
        און אָדער אבער אָבער די דער דאָס דעם אַ אַן אין אויף פון צו מיט פֿון ביי פאר איז זענען געווען האָט
        האבן איך דו ער זי עס מיר איר זיי ניט נישט וואָס ווער ווו ווען ווי
    """,
}

STOP_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(words.split()) for language, words in _WORDS.items()
}
"""Stop words by the language's Snowball name; a language that is missing here has none."""

STOP_WORDS["porter"] = STOP_WORDS["english"]
STOP_WORDS["dutch_porter"] = STOP_WORDS["dutch"]
